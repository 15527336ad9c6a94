"""What diffs and results say about themselves: where entries lie and how much diffs share; loads no model."""

import re

import torch

from glue_sparse.diff import SparseDiff
from glue_sparse.params import BLOCK

_KEY_BIAS = re.compile(r"\b(key|k_lin|k_proj)\.bias$")


def density_by_layer(diff: SparseDiff) -> dict[str, tuple[int, int]]:
    """Layer -> (active, all) entries of its masked tensors; a layer is the name up to its first number."""
    counts: dict[str, tuple[int, int]] = {}
    for name, shape in diff.shapes.items():
        numbered = BLOCK.match(name)
        layer = numbered[1] if numbered else name.rpartition(".")[0]
        active, entries = counts.get(layer, (0, 0))
        counts[layer] = (active + len(diff.indices.get(name, ())), entries + torch.Size(shape).numel())
    return counts


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
