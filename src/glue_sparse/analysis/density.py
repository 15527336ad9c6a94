"""What diffs and results say about themselves: where entries lie and how much diffs share; loads no model."""

import re
from collections.abc import Callable

import torch

from glue_sparse.core.masks import Masks, num_active
from glue_sparse.core.names import PARTS, block_of, kind_of, part_of
from glue_sparse.core.options import Inactive
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.writing.tables import markdown

Counts = dict[str, tuple[int, int]]
"""What is counted -> (active, all) entries."""


def layer_of(name: str) -> str:
    """A parameter's layer: its name up to the first number, and without its last word where there is none."""
    return block_of(name) or name.rpartition(".")[0]


BY: dict[str, Callable[[str], str]] = {"part": part_of, "layer": layer_of, "kind": kind_of}
"""How entries can be counted -> what a parameter's are counted under."""


def density_by_layer(source: SparseDiff | Masks) -> Counts:
    """Entries of the masked tensors of each layer; see `layer_of`."""
    return _count(source, layer_of)


def density_by_kind(source: SparseDiff | Masks) -> Counts:
    """Entries of each kind of tensor: those of all blocks that have the same name there, others by their own name."""
    return _count(source, kind_of)


def placement(diff: SparseDiff, by: str) -> Counts:
    """Entries of the whole model, and those that a run trained, head and other whole tensors too.

    Args:
        by: one of `BY`; parts are in the order of `PARTS`, others in that of their names.
    """
    sizes = {name: tensor.numel() for name, tensor in diff.whole.items()}
    counts = _count(diff, BY[by], {name: (size, size) for name, size in sizes.items()})
    return {key: counts[key] for key in sorted(counts, key=PARTS.index if by == "part" else _natural)}


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """By which layer 2 comes before layer 10."""
    return [(word.isdecimal(), int(word) if word.isdecimal() else 0, word) for word in re.split(r"(\d+)", name)]


def _count(source: SparseDiff | Masks, key: Callable[[str], str], more: Counts | None = None) -> Counts:
    counts: Counts = {}
    for name, (active, entries) in {**_by_tensor(source), **(more or {})}.items():
        before = counts.get(key(name), (0, 0))
        counts[key(name)] = (before[0] + active, before[1] + entries)
    return counts


def _by_tensor(source: SparseDiff | Masks) -> Counts:
    if isinstance(source, SparseDiff):
        sizes = {name: torch.Size(shape).numel() for name, shape in source.shapes.items()}
        return {name: (len(source.indices.get(name, ())), size) for name, size in sizes.items()}
    return {name: (int(mask.sum()), mask.numel()) for name, mask in source.items()}


def of_masks(masks: Masks, model_entries: int | None = None, inactive: Inactive = "zero") -> str:
    """What is pruned, per kind of tensor and per layer, and its share of the masked tensors and of the whole model.

    Args:
        masks: of one tensor at least.
        inactive: what the entries hold that are not active; `frozen` ones are not pruned but do not train.
    """
    parts = []
    for what, counts in (("kind of tensor", density_by_kind(masks)), ("layer", density_by_layer(masks))):
        lines = [
            (part, f"{kept:,}", f"{entries:,}", f"{1 - kept / entries:.3%}") for part, (kept, entries) in counts.items()
        ]
        parts.append(markdown((what, "kept", "entries", "sparsity"), lines))
    kept, entries = num_active(masks), sum(mask.numel() for mask in masks.values())
    what = "pruned" if inactive == "zero" else "frozen"
    total = f"{entries - kept:,} of {entries:,} entries of {len(masks)} tensors are {what} ({1 - kept / entries:.3%})"
    if model_entries:
        rest = model_entries - entries
        total += f"; {(entries - kept) / model_entries:.3%} of the model, whose other {rest:,} entries are not masked"
    return "\n\n".join([*parts, total])
