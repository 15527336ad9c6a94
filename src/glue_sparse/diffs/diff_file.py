"""The file of a sparse diff: what its header says, and tensors that are checked before anyone uses them."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glue_sparse.core import tensor_files
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.finite import first_not_finite
from glue_sparse.diffs.identity import FILE_NAME, FORMAT, PARTS, DiffInfo

Parts = dict[str, dict[str, Tensor]]
"""`indices`, `values`, `whole` -> parameter name -> tensor."""


def write(
    path: Path, parts: Parts, info: dict[str, Any], shapes: dict[str, tuple[int, ...]], digests: dict[str, str]
) -> None:
    """Write a diff, whole or not at all; raises as `check_finite`."""
    check_finite(parts)
    tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    tensor_files.write(path, FORMAT, tensors, {"info": info, "shapes": shapes, "digests": digests})


def check_finite(parts: Parts) -> None:
    """Raise a ValueError that names a stored tensor with NaN or an infinite number.

    Of what is stored whole, a buffer that masks attention holds zeros, ones and infinite numbers alone, and may.
    """
    masks = {name: tensor for name, tensor in parts["whole"].items() if _is_mask(tensor)}
    trained = {**parts["values"], **{name: t for name, t in parts["whole"].items() if name not in masks}}
    if name := first_not_finite(trained, masks):
        raise ValueError(f"the values of {name} are not finite, so this is no diff to save or apply: the training it "
                         "is of has diverged")  # fmt: skip


def _is_mask(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool((tensor.isinf() | (tensor == 0) | (tensor == 1)).all())


def read(path: Path) -> dict[str, Any]:
    """The fields of a `SparseDiff` from its file.

    Raises:
        ValueError: missing, truncated, or not a diff of this library.
    """
    try:
        return _parse(*tensor_files.read(path, FORMAT))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def is_diff(path: str | Path) -> bool:
    """Whether `path` is a diff, or a folder with one."""
    path = Path(path)
    return tensor_files.is_format(path / FILE_NAME if path.is_dir() else path, FORMAT)


def digest(parts: Parts) -> str:
    """SHA-256 of all tensors of a diff."""
    sha = hashlib.sha256()
    for part in PARTS:
        for name in sorted(parts[part]):
            sha.update(f"{part} {name} {tensor_digest(parts[part][name])}\n".encode())
    return sha.hexdigest()


def _parse(tensors: dict[str, Tensor], header: dict[str, Any]) -> dict[str, Any]:
    parts: Parts = {"indices": {}, "values": {}, "whole": {}}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = tensor
    info = DiffInfo.of(header["info"])
    shapes = {name: tuple(shape) for name, shape in header["shapes"].items()}
    digests = header["digests"]
    if not parts["indices"].keys() == parts["values"].keys() == digests.keys() <= shapes.keys():
        raise TypeError("indices, values, shapes and digests name different tensors")
    for name, indices in parts["indices"].items():
        _check_indices(name, indices, parts["values"][name], torch.Size(shapes[name]).numel())
    return {**parts, "shapes": shapes, "digests": digests, "info": info}


def _check_indices(name: str, indices: Tensor, values: Tensor, num_entries: int) -> None:
    in_order = bool((indices[1:] > indices[:-1]).all())
    in_range = not len(indices) or (int(indices[0]) >= 0 and int(indices[-1]) < num_entries)
    if not (in_order and in_range and indices.shape == values.shape):
        raise TypeError(f"the indices of {name} do not fit its shape")
