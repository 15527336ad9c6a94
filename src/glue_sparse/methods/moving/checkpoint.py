"""Checkpoints of models whose entries move: beside the diff, which are active now and which have been."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from glue_sparse.core import tensor_files
from glue_sparse.core.active import active_tensors
from glue_sparse.core.masks import Masks, mask_of, narrow
from glue_sparse.core.parametrization import is_attached, original
from glue_sparse.core.stored import check_positions
from glue_sparse.diffs import frozen, restoring
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.methods.moving.explored import checked_explored, explored_state, load_explored
from glue_sparse.writing.fields import typed
from glue_sparse.writing.seals import Facts, reading

FILE_NAME = "moved.safetensors"
FORMAT = "glue_sparse moved"

Shapes = dict[str, torch.Size]
"""Tensor with active entries -> its shape."""
CheckExtra = Callable[[Mapping[str, Tensor], Shapes], None]
"""(a method's own tensors, shapes) -> nothing, or a ValueError for what that method cannot go on from."""


def save(model: nn.Module, info: DiffInfo, folder: Path, extra: Mapping[str, Tensor]) -> None:
    """Write the diff, and beside it the active entries, what has been explored, and tensors of the method's own."""
    SparseDiff.from_model(model, info).save_file(folder)
    active = {
        f"active/{name}": narrow(entries.indices.cpu(), entries.shape.numel())
        for name, entries in active_tensors(model)
    }
    tensor_files.write(folder / FILE_NAME, FORMAT, {**active, **explored_state(model), **extra}, {})


def no_extra(tensors: Mapping[str, Tensor], shapes: Shapes) -> None:
    """For methods that have no tensors of their own."""
    if tensors:
        raise ValueError(f"{min(tensors)} is not known")


def restore(
    model: nn.Module, folder: Path, block_size: int = 1, check_extra: CheckExtra = no_extra
) -> dict[str, Tensor]:
    """Continue from what `save` wrote, with a plain model or an attached one; returns the method's own tensors.

    Args:
        block_size: side of the tiles that active entries form.
        check_extra: refuses tensors that are not the method's own.
    Raises:
        ValueError: wrong base, damaged file; the model is unchanged then.
    """
    diff, path = SparseDiff.from_pretrained(folder), folder / FILE_NAME
    tensors, facts = tensor_files.read(path, FORMAT)
    shapes = _shapes(model, diff)
    with reading(path):
        typed(Facts, facts, "its header")
        masks = _masks(_part(tensors, "active"), shapes)
        _check_explored(_part(tensors, "explored"), masks, diff)
        extra = {key: tensor for key, tensor in tensors.items() if key.partition("/")[0] not in ("active", "explored")}
        check_extra(extra, shapes)
    restoring.check(diff, model, masks)
    restoring.put(diff, model, masks, block_size)
    load_explored(model, tensors)
    return extra


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{part}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{part}/")}


def _shapes(model: nn.Module, diff: SparseDiff) -> Shapes:
    """Of the tensors that have active entries, or are to have them: what trains and is not stored whole."""
    if is_attached(model):
        return {name: original(model, name).shape for name, _ in active_tensors(model)}
    diff.check(model)
    parameters = dict(model.named_parameters())
    found = frozen.to_mask(parameters, diff.shapes, diff.whole, diff.info.inactive)
    return {name: parameter.shape for name, parameter in found.items() if parameter.requires_grad}


def _masks(active: Mapping[str, Tensor], shapes: Shapes) -> Masks:
    if differing := active.keys() ^ shapes.keys():
        raise ValueError(f"the active entries of {min(differing)} are in the file or in the model alone")
    for name, positions in active.items():
        check_positions(name, positions, shapes[name].numel())
    return {name: mask_of(positions, shapes[name]) for name, positions in active.items()}


def _check_explored(explored: Mapping[str, Tensor], masks: Masks, diff: SparseDiff) -> None:
    """Raise a ValueError unless the diff has the values of just those entries that have been explored, or are active.

    Where the others are zero, it has those of the active ones alone.
    """
    if unknown := explored.keys() - masks.keys():
        raise ValueError(f"{min(unknown)} has no active entries")
    for name, mask in masks.items():
        has_been = checked_explored(name, explored[name], mask) if name in explored else mask
        wanted = mask if diff.info.inactive == "zero" else has_been
        if not torch.equal(wanted.flatten().nonzero().squeeze(1), diff.positions(name)):
            raise ValueError(f"the active entries of {name} are not those of the diff beside it")
