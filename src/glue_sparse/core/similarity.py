"""How far two masks agree, beside what chance would give."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

from glue_sparse.core.masks import Masks
from glue_sparse.core.names import block_of


@dataclass(frozen=True)
class Similarity:
    """Counts of two masks over the same entries, and what follows from them.

    Attributes:
        entries: all entries.
        first, second: entries that each mask keeps.
        both: entries that both keep.
        by_chance: entries that both would keep on average if each tensor's were drawn at random.
    """

    entries: int
    first: int
    second: int
    both: int
    by_chance: float

    @property
    def cosine(self) -> float | None:
        """Of the 0/1 masks, as the literature reports it. Two random masks of density d have d, not 0.

        At unequal densities it cannot reach 1, even where one mask is part of the other. None where a mask is empty.
        """
        return self._cosine(self.both)

    @property
    def chance(self) -> float | None:
        """Cosine of two masks of these densities drawn at random."""
        return self._cosine(self.first * self.second / self.entries)

    @property
    def chance_per_tensor(self) -> float | None:
        """The same, if each tensor keeps as many entries as it does."""
        return self._cosine(self.by_chance)

    def _cosine(self, both: float) -> float | None:
        return both / sqrt(self.first * self.second) if self.first and self.second else None

    @property
    def corrected(self) -> float | None:
        """(cosine - chance) / (1 - chance): 0 for random masks, 1 for equal ones; none for empty and full masks."""
        cosine, chance = self.cosine, self.chance
        if cosine is None or chance is None or self.entries in (self.first, self.second):
            return None
        return (cosine - chance) / (1 - chance)

    @property
    def overlap(self) -> float | None:
        """Kept by both / kept by the one that keeps less; none where that is nothing."""
        smaller = min(self.first, self.second)
        return self.both / smaller if smaller else None

    @property
    def pruned_overlap(self) -> float | None:
        """Pruned by both / pruned by the one that prunes less; none where that is nothing."""
        smaller = self.entries - max(self.first, self.second)
        return self._pruned_by_both / smaller if smaller else None

    @property
    def pruned_jaccard(self) -> float | None:
        """Pruned by both / pruned by either; none where that is nothing."""
        either = self.entries - self.both
        return self._pruned_by_both / either if either else None

    @property
    def _pruned_by_both(self) -> int:
        return self.entries - self.first - self.second + self.both

    @property
    def nested(self) -> bool:
        """Whether one mask keeps nothing that the other does not."""
        return self.both == min(self.first, self.second)


def compare(one: Masks, other: Masks) -> Similarity:
    """Both masks over all of their tensors.

    Raises:
        ValueError: masks of different tensors or shapes.
    """
    _check(one, other)
    return counted(_counts(one, other, name) for name in one)


def counted(tensors: Iterable[tuple[int, int, int, int]]) -> Similarity:
    """From (entries, kept by the first, kept by the second, kept by both) of each tensor."""
    counts = [*tensors]
    entries, first, second, both = (sum(column) for column in zip((0, 0, 0, 0), *counts, strict=True))
    by_chance = sum(a * b / n for n, a, b, _ in counts if n)
    return Similarity(entries, first, second, both, by_chance)


def compare_layers(one: Masks, other: Masks) -> dict[str, Similarity]:
    """Layer (the name up to its first number, or the tensor's own) -> similarity of its tensors."""
    _check(one, other)
    layers: dict[str, list[str]] = {}
    for name in one:
        layers.setdefault(block_of(name) or name, []).append(name)
    return {
        layer: compare({name: one[name] for name in names}, {name: other[name] for name in names})
        for layer, names in layers.items()
    }


def _check(one: Masks, other: Masks) -> None:
    if different := one.keys() ^ other.keys():
        raise ValueError(f"these masks are of different tensors: only one of them has {sorted(different)[0]}")
    for name, mask in one.items():
        if mask.shape != other[name].shape:
            raise ValueError(f"{name} is {tuple(mask.shape)} in one mask and {tuple(other[name].shape)} in the other")
    if not one:
        raise ValueError("these masks name no tensor")


def _counts(one: Masks, other: Masks, name: str) -> tuple[int, int, int, int]:
    a, b = one[name], other[name]
    return a.numel(), int(a.sum()), int(b.sum()), int((a & b).sum())
