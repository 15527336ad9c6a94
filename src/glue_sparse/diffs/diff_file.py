"""The file of a sparse diff: what its header says, and tensors that are checked before anyone uses them."""

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glue_sparse.core import tensor_files
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.finite import first_not_finite
from glue_sparse.core.stored import check_like, check_positions, check_shape
from glue_sparse.diffs.identity import FILE_NAME, FORMAT, PARTS, DiffFacts, DiffInfo, Link
from glue_sparse.writing import seals
from glue_sparse.writing.fields import typed
from glue_sparse.writing.seals import reading

Parts = dict[str, dict[str, Tensor]]
"""`indices`, `values`, `whole` -> parameter name -> tensor."""
_DIGEST = re.compile("[0-9a-f]{64}")


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


def read(path: Path) -> tuple[dict[str, Any], Link | None]:
    """The fields of a `SparseDiff` from its file, all checked, and of a delta its link.

    Raises:
        ValueError: missing, damaged, not finite, or not a diff of this library.
    """
    tensors, stored = tensor_files.read(path, FORMAT)
    parts: Parts = {part: {} for part in PARTS}
    with reading(path):
        facts = typed(DiffFacts, stored, "its header")
        info, link = facts.parted()
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            if part not in PARTS or not name:
                raise ValueError(f"{key!r} is no part of a diff")
            parts[part][name] = tensor
        _check(parts, facts, info, is_delta=link is not None)
    check_finite(parts)
    return {**parts, "shapes": facts.shapes, "digests": facts.digests, "info": info}, link


def _check(parts: Parts, facts: DiffFacts, info: DiffInfo, is_delta: bool) -> None:
    """Raise a ValueError unless names, shapes, types and positions belong together."""
    indices, shapes, digests = parts["indices"], facts.shapes, facts.digests
    if not indices.keys() == parts["values"].keys() == digests.keys() <= shapes.keys():
        raise ValueError("indices, values, shapes and digests name different tensors")
    if info.inactive == "zero" and (pruned := shapes.keys() - indices.keys()):
        raise ValueError(f"the active entries of {min(pruned)} are missing")
    if both := shapes.keys() & parts["whole"].keys():
        raise ValueError(f"{min(both)} is whole and has active entries")
    for name, shape in shapes.items():
        num_entries = check_shape(name, shape)
        if name not in indices:
            continue
        values, digest = parts["values"][name], digests[name]
        check_positions(name, indices[name], num_entries)
        # a delta has those of the tensor's own type
        check_like(f"values of {name}", values, indices[name].shape, values.dtype if is_delta else torch.float32)
        if not values.is_floating_point() or not _DIGEST.fullmatch(digest):
            raise ValueError(f"the values or the digest of {name} are none")


def is_diff(path: str | Path) -> bool:
    """Whether `path` is a diff, or a folder with one."""
    path = Path(path)
    return seals.is_kind(path / FILE_NAME if path.is_dir() else path, FORMAT)


def digest(parts: Parts) -> str:
    """SHA-256 of all tensors of a diff."""
    sha = hashlib.sha256()
    for part in PARTS:
        for name in sorted(parts[part]):
            sha.update(f"{part} {name} {tensor_digest(parts[part][name])}\n".encode())
    return sha.hexdigest()
