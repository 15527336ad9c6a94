"""What diffs and results say about themselves: where entries lie and how much diffs share; loads no model."""

import torch

from glue_sparse.analysis.parts import Counts, counted, layer_of, ordered
from glue_sparse.core.masks import Masks, num_active
from glue_sparse.core.names import kind_of
from glue_sparse.core.options import Inactive
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.models.of_diff import read_diff
from glue_sparse.writing.tables import markdown


def density_by_layer(source: SparseDiff | Masks) -> Counts:
    """Entries of the masked tensors of each layer; see `layer_of`."""
    return counted(_by_tensor(source).items(), layer_of)


def density_by_kind(source: SparseDiff | Masks) -> Counts:
    """Entries of each kind of tensor: those of all blocks that have the same name there, others by their own name."""
    return counted(_by_tensor(source).items(), kind_of)


def placement(diff: SparseDiff, by: str) -> Counts:
    """Entries of the whole model, and those that a run trained, head and other whole tensors too.

    Args:
        by: one of `parts.BY`, which says in which order, too.
    """
    whole = {name: (tensor.numel(), tensor.numel()) for name, tensor in diff.whole.items()}
    return ordered({**_by_tensor(diff), **whole}.items(), by)


def placement_at(place: str, by: str) -> Counts:
    """The same of the diff in a file, a folder or a hub repository."""
    return placement(read_diff(place), by)


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
