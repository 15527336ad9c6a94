"""Tensors that come from a file, checked against what they must be before anyone uses them."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from glue_sparse.core.finite import first_not_finite

_MOST = 1 << 33
"""More entries than any tensor of a model has: no memory is asked for a shape that only says it."""
_MOST_SIZES = 16


def check_shape(name: str, shape: Sequence[int]) -> int:
    """How many entries a tensor of a stored shape has; ValueError for what is no shape."""
    if len(shape) > _MOST_SIZES or min(shape, default=0) < 0 or math.prod(shape) > _MOST:
        raise ValueError(f"the shape of {name}, {list(shape)[:8]}, is not that of a tensor")
    return math.prod(shape)


def check_positions(name: str, positions: Tensor, num_entries: int) -> None:
    """Raise a ValueError unless [k] flat positions are integers in ascending order, each once, of a tensor so large."""
    if positions.dtype not in (torch.int32, torch.int64) or positions.dim() != 1:
        raise ValueError(f"the positions of {name} are no vector of integers")
    found = positions.numpy()  # a file has hundreds of them, and an operation of torch costs several of NumPy's
    if len(found) and (found[0] < 0 or found[-1] >= num_entries):
        raise ValueError(f"positions of {name} do not fit its shape: they are outside of it")
    if not (found[1:] > found[:-1]).all():
        raise ValueError(f"the positions of {name} do not fit its shape: they are not in order, each once")


def check_like(name: str, tensor: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    """Raise a ValueError unless a tensor has this shape and type, as they are: nothing is broadcast or converted."""
    if tuple(tensor.shape) != tuple(shape) or tensor.dtype != dtype:
        raise ValueError(f"{name} is {_words(tensor.dtype, tensor.shape)} and not {_words(dtype, shape)}")


def check_all_like(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """The same for tensors by name, all of which must be there and no other."""
    if found.keys() != wanted.keys():
        raise ValueError(f"one side alone has {min(found.keys() ^ wanted.keys())}")
    for name, tensor in wanted.items():
        check_like(name, found[name], tensor.shape, tensor.dtype)


def check_bits(name: str, packed: Tensor, num_entries: int) -> None:
    """Raise a ValueError unless a tensor is what `masks.pack` makes of so many entries."""
    check_like(name, packed, (-(-num_entries // 8),), torch.uint8)
    if num_entries % 8 and int(packed[-1]) & (0xFF >> num_entries % 8):
        raise ValueError(f"{name} has bits of entries that the tensor does not have")


def check_numbers(tensors: Mapping[str, Tensor]) -> None:
    """Raise a ValueError that names a tensor with NaN or an infinite number."""
    if name := first_not_finite(tensors):
        raise ValueError(f"{name} holds numbers that are not finite")


def _words(dtype: torch.dtype, shape: Sequence[int]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"
