"""Checkpoints of models whose entries move: beside the diff, which are active now and which have been."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from glue_sparse.core import tensor_files
from glue_sparse.core.active import active_tensors
from glue_sparse.core.masks import Masks, narrow
from glue_sparse.core.parametrization import is_attached, original
from glue_sparse.core.reindexing import reindex
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.methods.moving.explored import explored_state, load_explored

FILE_NAME = "moved.safetensors"
FORMAT = "glue_sparse moved 1"


def save(model: nn.Module, info: DiffInfo, folder: Path, extra: Mapping[str, Tensor]) -> None:
    """Write the diff, and beside it the active entries, what has been explored, and tensors of the method's own."""
    SparseDiff.from_model(model, info).save_pretrained(folder)
    active = {
        f"active/{name}": narrow(entries.indices.cpu(), entries.shape.numel())
        for name, entries in active_tensors(model)
    }
    tensor_files.write(folder / FILE_NAME, FORMAT, {**active, **explored_state(model), **extra}, {})


def restore(model: nn.Module, folder: Path, block_size: int = 1) -> dict[str, Tensor]:
    """Continue from what `save` wrote, with a plain model or an attached one; returns the method's own tensors.

    Args:
        block_size: side of the tiles that active entries form.
    Raises:
        ValueError: wrong base, damaged file.
    """
    diff = SparseDiff.from_pretrained(folder)
    tensors, _ = tensor_files.read(folder / FILE_NAME, FORMAT)
    masks: Masks = {}
    for key, indices in tensors.items():
        part, _, name = key.partition("/")
        if part == "active":
            masks[name] = torch.zeros(original(model, name).shape, dtype=torch.bool)
            masks[name].view(-1)[indices.long()] = True
    if is_attached(model):
        reindex(model, masks)
    diff.restore(model, masks, block_size)
    load_explored(model, tensors)
    return {key: tensor for key, tensor in tensors.items() if key.partition("/")[0] not in ("active", "explored")}
