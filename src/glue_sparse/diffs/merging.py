"""The entries of several diffs brought side by side, tensor by tensor and a piece at a time, and merged by a rule."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glue_sparse.core import pieces
from glue_sparse.core.masks import narrow
from glue_sparse.core.parametrization import read_entries
from glue_sparse.diffs import merge_rules
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.merge_rules import Kept, Rule, Stack

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Part:
    """What one diff holds of one tensor.

    Attributes:
        positions: [k] int64, sorted flat positions.
        values: [k] what it holds there.
        kept: [k] bool, which of them count; none: all.
    """

    positions: Tensor
    values: Tensor
    kept: Tensor | None = None

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """([m] float64 values, [m] bool whether they count) at sorted flat positions."""
        if not len(self.positions):
            return torch.zeros(len(places), dtype=torch.float64), torch.zeros(len(places), dtype=torch.bool)
        found = torch.searchsorted(self.positions, places).clamp(max=len(self.positions) - 1)
        held = self.positions[found] == places
        if self.kept is not None:
            held &= self.kept[found]
        return self.values[found].double(), held


def part_of(diff: SparseDiff, name: str, kept: Kept | None = None) -> Part:
    """What a diff holds of a tensor; nothing where it leaves it alone."""
    chosen = None if kept is None else kept.get(name)
    if name in diff.whole:
        flat = diff.whole[name].reshape(-1)
        return Part(torch.arange(len(flat)), flat, chosen)
    return Part(diff.positions(name), diff.values.get(name, torch.zeros(0)), chosen)


def changes_of(diff: SparseDiff, names: Sequence[str], tensors: Tensors) -> dict[str, Tensor]:
    """Tensor -> [k] float64, value - base of each stored entry of a diff, of the tensors named that it has."""
    found = {}
    for name in names:
        part = part_of(diff, name)
        if len(part.positions) and part.values.is_floating_point():
            found[name] = part.values.double() - read_entries(tensors[name], part.positions).cpu().double()
    return found


@dataclass(frozen=True)
class Merger:
    """Diffs, and what each counts for.

    Attributes:
        kept: of each diff the entries that were not trimmed or dropped; none: all.
        tensors: of the base; none for a rule that needs none.
    """

    diffs: Sequence[SparseDiff]
    weights: Tensor
    rule: Rule
    density: float
    kept: Sequence[Kept | None]
    tensors: Tensors | None

    def entries(self, name: str) -> tuple[Tensor, Tensor]:
        """([k] int64 sorted flat positions, [k] float32 values) of a tensor: where any diff counts."""
        parts = self._parts(name)
        union = torch.cat([part.positions for part in parts]).unique()
        found = [(places[held], values[held]) for places, values, held in self._pieces(name, parts, union)]
        if not found:
            return union, torch.zeros(0)
        places, values = zip(*found, strict=True)
        return torch.cat(places), torch.cat(values).float()

    def whole(self, name: str) -> Tensor:
        """A tensor that some diff holds whole, as a whole; of numbers that are no floats the first diff's."""
        model = next(diff.whole[name] for diff in self.diffs if name in diff.whole)
        if not model.is_floating_point():
            return model.clone()
        parts = self._parts(name)
        found = [values for _, values, _ in self._pieces(name, parts, torch.arange(model.numel()))]
        return torch.cat([torch.zeros(0), *found]).to(model.dtype).view(model.shape)

    def _parts(self, name: str) -> list[Part]:
        return [part_of(diff, name, kept) for diff, kept in zip(self.diffs, self.kept, strict=True)]

    def _pieces(self, name: str, parts: Sequence[Part], union: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(positions, float64 values, whether any diff counts) of each piece of a tensor's entries."""
        for places in union.split(pieces.SIZE) if len(union) else ():
            values, held = (torch.stack(rows) for rows in zip(*(part.at(places) for part in parts), strict=True))
            base = None if self.tensors is None else read_entries(self.tensors[name], places).cpu().double()
            stack = Stack(values, held, base, self.weights, self.density)
            yield places, merge_rules.combined(stack, self.rule), held.any(0)


def merged(merger: Merger, names: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> SparseDiff:
    """The merged tensors as a diff: whole where any diff holds them whole, else their entries.

    Args:
        names: tensors to merge.
        shapes: of all tensors that any diff names.
    """
    digests = {name: digest for diff in merger.diffs for name, digest in diff.digests.items()}
    is_whole = {name for diff in merger.diffs for name in diff.whole}
    found = SparseDiff({}, {}, {}, {name: shape for name, shape in shapes.items() if name not in is_whole}, {})
    for name in names:
        if name in is_whole:
            found.whole[name] = merger.whole(name)
            continue
        places, values = merger.entries(name)
        if len(places):
            found.indices[name] = narrow(places, torch.Size(shapes[name]).numel())
            found.values[name], found.digests[name] = values, digests[name]
    return found
