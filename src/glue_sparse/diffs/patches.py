"""A diff in the terms of a checkpoint, for serving engines that change some weights of a model they hold."""

from collections.abc import Iterator
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from glue_sparse.core import tensor_files
from glue_sparse.core.masks import narrow
from glue_sparse.diffs.restoring import Stored
from glue_sparse.diffs.stored_names import Layout, converts, layout_of
from glue_sparse.writing.words import listed

FORMAT = "glue_sparse checkpoint patches"


class CheckpointPatch(NamedTuple):
    """New values of one tensor of a checkpoint, in the fields of vLLM's class of this name.

    Attributes:
        name: of the tensor in the checkpoint; of tied tensors the first.
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


def of(diff: Stored, model: PreTrainedModel | None = None) -> Patches:
    """See `SparseDiff.checkpoint_patches`."""
    if model is None and converts(diff.info.model_class):
        raise ValueError(f"a {diff.info.model_class} is stored under other names than its tensors have in memory: give "
                         "`model`, on the meta device if you like, whose checkpoint is to be patched")  # fmt: skip
    layout = None if model is None else layout_of(model)
    found = [*_of_tensors(diff)]
    if layout is not None:
        found = [*_converted(found, layout)]
    sparse = [one for one in found if one.indices is not None]
    dense = [one for one in found if one.indices is None]
    for patch in (*sparse, *dense):
        if patch.values.is_floating_point() and not patch.values.isfinite().all():
            raise ValueError(f"{patch.name} holds a value that is not finite as {patch.dtype}, and engines take NaN "
                             "for what stays: it cannot be patched")  # fmt: skip
    return Patches(sparse, dense)


def _of_tensors(diff: Stored) -> Iterator[CheckpointPatch]:
    """Patches of the model's own tensors."""
    dtype = getattr(torch, diff.info.dtype)
    if diff.info.inactive == "zero":
        yield from _pruned(diff, dtype)
    else:
        for name, indices in diff.indices.items():
            if len(indices):
                yield CheckpointPatch(name, diff.shapes[name], dtype, diff.values[name].to(dtype), indices)
    for name, tensor in diff.whole.items():
        yield CheckpointPatch(name, tuple(tensor.shape), tensor.dtype, tensor.reshape(-1), None)


def _converted(patches: list[CheckpointPatch], layout: Layout) -> Iterator[CheckpointPatch]:
    """The same of the tensors that a checkpoint has for them; each group of patches is let go once it is done."""
    left = {one.name: one for one in patches}
    for group in layout.groups:
        found = {name: left.pop(name) for name in group if name in left}
        if found:
            yield from _moved(found, group, layout)
    if left:
        raise ValueError(f"this model has no tensor {min(left)}, which the diff has: give the model that it is of")


def _moved(found: dict[str, CheckpointPatch], group: tuple[str, ...], layout: Layout) -> Iterator[CheckpointPatch]:
    """Patches of a group, in which the model's tensors lie flat one behind the other."""
    if wrong := [name for name, one in found.items() if one.shape != layout.shapes[name]]:
        raise ValueError(f"{wrong[0]} has another shape in this model than in the diff: give the model that it is of")
    if len(dtypes := {one.dtype for one in found.values()}) > 1:
        raise ValueError(f"{listed([*found])} are stored as one tensor and have several types: {dtypes}")
    sizes = [prod(layout.shapes[name]) for name in group]
    starts = dict(zip(group, accumulate(sizes, initial=0), strict=False))
    values = torch.cat([one.values for one in found.values()])
    is_whole = len(found) == len(group) and all(one.indices is None for one in found.values())
    known = [torch.arange(prod(one.shape)) if one.indices is None else one.indices.long() for one in found.values()]
    keys = torch.cat([starts[name] + one for name, one in zip(found, known, strict=True)])
    for name, shape, positions in layout.places(group):
        if is_whole:
            yield CheckpointPatch(name, shape, values.dtype, values[positions.long()], None)
            continue
        near = torch.searchsorted(keys, positions.long()).clamp_(max=len(keys) - 1)
        hit = (keys[near] == positions).nonzero().squeeze(1)
        if len(hit):
            yield CheckpointPatch(name, shape, values.dtype, values[near[hit]], narrow(hit, len(positions)))


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
