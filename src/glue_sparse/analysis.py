"""What diffs and results say about themselves: where entries lie and how much diffs share; loads no model."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from glue_sparse.diff import SparseDiff
from glue_sparse.masks import Masks
from glue_sparse.params import block_of, kind_of

_KEY_BIAS = re.compile(r"\b(key|k_lin|k_proj)\.bias$")

Counts = dict[str, tuple[int, int]]
"""What is counted -> (active, all) entries."""


def density_by_layer(source: SparseDiff | Masks) -> Counts:
    """Entries of the masked tensors of each layer; a layer is the name up to its first number."""
    return _count(source, lambda name: block_of(name) or name.rpartition(".")[0])


def density_by_kind(source: SparseDiff | Masks) -> Counts:
    """Entries of each kind of tensor: those of all blocks that have the same name there, others by their own name."""
    return _count(source, kind_of)


def _count(source: SparseDiff | Masks, key: Callable[[str], str]) -> Counts:
    counts: Counts = {}
    for name, (active, entries) in _by_tensor(source).items():
        before = counts.get(key(name), (0, 0))
        counts[key(name)] = (before[0] + active, before[1] + entries)
    return counts


def _by_tensor(source: SparseDiff | Masks) -> Counts:
    if isinstance(source, SparseDiff):
        sizes = {name: torch.Size(shape).numel() for name, shape in source.shapes.items()}
        return {name: (len(source.indices.get(name, ())), size) for name, size in sizes.items()}
    return {name: (int(mask.sum()), mask.numel()) for name, mask in source.items()}


@dataclass(frozen=True)
class Storage:
    """Bytes that n tasks take on disk."""

    model: int
    """One whole model."""
    diffs: tuple[int, ...]
    """The diff of each task."""

    @property
    def shared(self) -> int:
        """One base model and a diff per task."""
        return self.model + sum(self.diffs)

    @property
    def separate(self) -> int:
        """A model of its own for each task."""
        return self.model * len(self.diffs)


def storage(diffs: Sequence[SparseDiff]) -> Storage:
    """What several diffs of one base model take, tensors alone, beside as many whole models."""
    return Storage(max(map(_model_bytes, diffs)), tuple(diff.nbytes for diff in diffs))


def _model_bytes(diff: SparseDiff) -> int:
    masked = sum(torch.Size(shape).numel() for shape in diff.shapes.values())
    return masked * getattr(torch, diff.info.dtype).itemsize + sum(tensor.nbytes for tensor in diff.whole.values())


def overlap(one: SparseDiff, two: SparseDiff) -> tuple[int, int, float]:
    """(entries in both, entries of the smaller diff, entries in both if each tensor's were drawn at random)."""
    shared, chance = 0, 0.0
    for name in one.indices.keys() & two.indices.keys():
        first, second = one.indices[name], two.indices[name]
        shared += int(torch.isin(first, second).sum())
        chance += len(first) * len(second) / max(1, torch.Size(one.shapes[name]).numel())
    return shared, min(one.num_active, two.num_active), chance


def emptied(diff: SparseDiff) -> tuple[int, int]:
    """(masked tensors without a stored entry, those of them that are biases of attention keys).

    The gradient of a key's bias is exactly zero, since the softmax does not see a shift that all its inputs share.
    """
    empty = [name for name in diff.shapes if not len(diff.indices.get(name, ()))]
    return len(empty), sum(bool(_KEY_BIAS.search(name)) for name in empty)
