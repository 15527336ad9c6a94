"""A diff in the terms of a checkpoint, for serving engines that change some weights of a model they hold."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from glue_sparse.core import tensor_files
from glue_sparse.diffs.restoring import Stored

FORMAT = "glue_sparse checkpoint patches"


class CheckpointPatch(NamedTuple):
    """New values of one tensor of a checkpoint, in the fields of vLLM's class of this name.

    Attributes:
        name: of the tensor, as the model's parameters are called; of tied tensors the first.
        shape: of the whole tensor.
        dtype: of the checkpoint's tensor.
        values: [k] absolute values, not differences, of that type; of a dense patch the whole tensor, flat.
        indices: [k] ascending flat positions, int32 where they fit; none for a dense patch.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    values: Tensor
    indices: Tensor | None


class Patches(NamedTuple):
    """Patches by kind, since engines take one kind at a time."""

    sparse: list[CheckpointPatch]
    dense: list[CheckpointPatch]


def of(diff: Stored) -> Patches:
    """See `SparseDiff.checkpoint_patches`."""
    dtype = getattr(torch, diff.info.dtype)
    if diff.info.inactive == "zero":
        dense = list(_pruned(diff, dtype))
        sparse = []
    else:
        dense = []
        sparse = [
            CheckpointPatch(name, diff.shapes[name], dtype, diff.values[name].to(dtype), indices)
            for name, indices in diff.indices.items() if len(indices)
        ]  # fmt: skip
    dense += [CheckpointPatch(n, tuple(t.shape), t.dtype, t.reshape(-1), None) for n, t in diff.whole.items()]
    for patch in (*sparse, *dense):
        if patch.values.is_floating_point() and not patch.values.isfinite().all():
            raise ValueError(f"{patch.name} holds a value that is not finite as {patch.dtype}, and engines take NaN "
                             "for what stays: it cannot be patched")  # fmt: skip
    return Patches(sparse, dense)


def _pruned(diff: Stored, dtype: torch.dtype) -> Iterator[CheckpointPatch]:
    """Of a model whose inactive entries are zero, the base's values go too, so nothing less than all is told."""
    for name, shape in diff.shapes.items():
        full = torch.zeros(shape, dtype=dtype).reshape(-1)
        if name in diff.indices:
            full[diff.indices[name].long()] = diff.values[name].to(dtype)
        yield CheckpointPatch(name, shape, dtype, full, None)


def save(patches: Patches, path: Path) -> None:
    """Write patches to a safetensors file: `values/NAME` of each, and `indices/NAME` of sparse ones; its header holds
    their shapes and types as JSON."""
    every = [*patches.sparse, *patches.dense]
    tensors = {f"values/{one.name}": one.values.contiguous() for one in every}
    tensors |= {f"indices/{one.name}": one.indices for one in every if one.indices is not None}
    facts = {
        "shapes": {one.name: list(one.shape) for one in every},
        "dtypes": {one.name: str(one.dtype).removeprefix("torch.") for one in every},
    }
    tensor_files.write(path, FORMAT, tensors, facts)
