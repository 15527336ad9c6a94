"""What diffs of one base have in common: entries, and how far their changes agree there."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from glue_sparse.core.similarity import Similarity, counted
from glue_sparse.diffs import one_base
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.merging import changes_of
from glue_sparse.diffs.one_base import Base


@dataclass(frozen=True)
class Overlap:
    """Two of several diffs, over the tensors that neither holds whole.

    Attributes:
        first, second: their places among the diffs, from 0.
        entries: counts of active entries: of each, of both, and of both by chance, if those of each tensor were random.
        opposed: entries of both that the two change in opposite directions; none where no base was given.
        cosine: of the two vectors of changes; none without a base, and where a diff changes nothing.
    """

    first: int
    second: int
    entries: Similarity
    opposed: int | None = None
    cosine: float | None = None

    @property
    def share_opposed(self) -> float | None:
        """Of the entries of both, those that are changed in opposite directions; none where there are none."""
        return None if self.opposed is None or not self.entries.both else self.opposed / self.entries.both


def overlap(diffs: Sequence[SparseDiff], base: Base | None = None) -> list[Overlap]:
    """For each pair of diffs: what they share, what chance would give, and whether their changes agree.

    Args:
        diffs: two or more, of one base; of pruned models too.
        base: as for `merge`; without one there is nothing to say of changes.
    Returns:
        One `Overlap` for each pair, in the order (0, 1), (0, 2), ..., (1, 2), ...
    Raises:
        ValueError: fewer than two diffs, or diffs or a base that do not belong together.
    """
    if len(diffs) < 2:
        raise ValueError("give two diffs or more, to see what they have in common")
    one_base.check_agree(diffs)
    changes: list[dict[str, Tensor]] | None = None
    if base is not None:
        tensors = one_base.tensors_of(base)
        one_base.check_base(diffs, base, tensors)
        changes = [changes_of(diff, (*diff.indices,), tensors) for diff in diffs]
    found = []
    for i, j in combinations(range(len(diffs)), 2):
        entries, shared = _shared(diffs[i], diffs[j])
        opposed, cosine = _agreement(shared, changes[i], changes[j]) if changes else (None, None)
        found.append(Overlap(i, j, entries, opposed, cosine))
    return found


Shared = dict[str, tuple[Tensor, Tensor]]
"""Tensor -> [k] bool of each of two diffs, which of its entries the other has too."""


def _shared(one: SparseDiff, other: SparseDiff) -> tuple[Similarity, Shared]:
    whole = one.whole.keys() | other.whole.keys()
    shapes = {name: shape for name, shape in {**one.shapes, **other.shapes}.items() if name not in whole}
    shared, counts = {}, []
    for name, shape in shapes.items():
        a, b = one.positions(name), other.positions(name)
        shared[name] = torch.isin(a, b, assume_unique=True), torch.isin(b, a, assume_unique=True)
        counts.append((torch.Size(shape).numel(), len(a), len(b), int(shared[name][0].sum())))
    return counted(counts), shared


def _agreement(shared: Shared, one: dict[str, Tensor], other: dict[str, Tensor]) -> tuple[int, float | None]:
    """(shared entries changed in opposite directions, cosine of all changes)."""
    opposed, product = 0, 0.0
    for name, (a, b) in shared.items():
        if a.any():
            products = one[name][a] * other[name][b]
            opposed, product = opposed + int((products < 0).sum()), product + float(products.sum())
    norms = [sum(float(change[name].square().sum()) for name in shared if name in change) for change in (one, other)]
    return opposed, product / (norms[0] * norms[1]) ** 0.5 if all(norms) else None
