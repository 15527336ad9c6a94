"""Entries of tensors, written and read in one launch each."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glue_sparse.kernels import backend

TYPES = (*backend.TYPES, torch.float64)
_BLOCK = 1024


def takes(tensor: Tensor, indices: Tensor, values: Tensor | None = None) -> bool:
    """Whether kernels read a tensor's entries at these positions, or write values there."""
    if tensor.device.type not in backend.DEVICES or tensor.layout != torch.strided or not tensor.is_contiguous():
        return False
    others = [indices] if values is None else [indices, values]
    is_fit = all(one.device == tensor.device and one.shape == indices.shape for one in others)
    are_known = tensor.dtype in TYPES and (values is None or values.dtype in TYPES)
    return is_fit and are_known and backend.available(tensor.device)


def write(weight: Tensor, indices: Tensor, values: Tensor) -> None:
    """Write [k] `values` at [k] flat `indices`, int32 or int64 and each at most once, of a contiguous weight."""
    if count := len(indices):
        grid = (backend.ceil(count, _BLOCK),)
        held = indices.contiguous(), values.contiguous()
        backend.launch(backend.code("entries").write, grid, weight, *held, count, BLOCK=_BLOCK)


def write_all(writes: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
    """The same for many (weight, indices, values): one launch for all of the same types on a device."""
    kinds: dict[tuple[Any, ...], list[tuple[Tensor, ...]]] = {}
    for weight, indices, values in writes:
        one = (weight, indices.contiguous(), values.contiguous())
        if len(indices):
            kinds.setdefault((weight.device, *(tensor.dtype for tensor in one)), []).append(one)
    for (device, *kind), held in kinds.items():
        lengths = [len(indices) for _, indices, _ in held]
        addresses = [[tensor.data_ptr() for tensor in tensors] for tensors in zip(*held, strict=True)]
        table = torch.tensor([*addresses, lengths]).to(device, non_blocking=True)
        names = dict(zip(("WEIGHT", "INDEX", "VALUE"), map(_name, kind), strict=True))
        grid = (backend.ceil(max(lengths), _BLOCK), len(held))
        backend.launch(backend.code("entries").write_all, grid, table, len(held), **names, BLOCK=_BLOCK)


def _name(dtype: torch.dtype) -> Any:
    """A type as Triton has it."""
    return getattr(backend.code("entries").tl, str(dtype).removeprefix("torch."))


def read(tensor: Tensor, indices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """[k] entries of a contiguous tensor at [k] flat `indices`, int32 or int64, as `dtype`."""
    found = torch.empty(indices.shape, dtype=dtype, device=tensor.device)
    if count := len(indices):
        grid = (backend.ceil(count, _BLOCK),)
        backend.launch(
            backend.code("entries").read, grid, tensor, indices.contiguous(), found, count, BLOCK=_BLOCK
        )  # fmt: skip
    return found
