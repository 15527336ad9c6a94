"""The file of a sparse diff: what its header says, and tensors that are checked before anyone uses them."""

import hashlib
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from glue_sparse.core import tensor_files
from glue_sparse.core.chosen import narrow
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.finite import first_not_finite
from glue_sparse.core.options import Precision
from glue_sparse.core.stored import check_like, check_positions, check_shape
from glue_sparse.diffs import compact
from glue_sparse.diffs.compact import stored_values
from glue_sparse.diffs.identity import FILE_NAME, FORMAT, PARTS, DiffInfo, Link, PlainFacts, facts_in
from glue_sparse.writing import seals
from glue_sparse.writing.seals import reading
from glue_sparse.writing.words import check_one_of

Parts = dict[str, dict[str, Tensor]]
"""`indices`, `values`, `whole` -> parameter name -> tensor."""
_DIGEST = re.compile("[0-9a-f]{64}")


class BaseNeeded(ValueError):
    """A file holds differences to a base that was not given; `info` says which."""

    def __init__(self, path: Path, info: DiffInfo):
        super().__init__(
            f"{path} holds differences to {info.base_model}: give that as `base`, use `read_diff`, or let "
            "`glue-sparse diff pack` write the diff anew with `values` float32"
        )
        self.info = info


def write(
    path: Path,
    parts: Parts,
    info: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
    digests: dict[str, str],
    precision: Precision | None = None,
    base: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a diff in the compact layout, whole or not at all.

    Args:
        precision: of the values; none: of the type that they have, as a delta's.
        base: name -> tensor of the base, for differences.
    Raises:
        ValueError: as `check_finite`, or no such precision; of differences also where the base is another one.
    """
    if precision is not None:
        check_one_of("`values`", precision, get_args(Precision))
    check_finite(parts)
    indices = {name: narrow(found, prod(shapes[name])) for name, found in parts["indices"].items()}
    values = parts["values"] if precision is None else stored_values(parts["values"], indices, precision, base)
    tensors, coded = compact.pack(indices, values, parts["whole"], digests)
    read = values if precision is None else _read_values(values, indices, base if precision == "differences" else None)
    check_finite({**parts, "values": read})  # the largest numbers are none in a shorter type
    facts = {"layout": 2, "info": info, "shapes": shapes, "coded": coded,
             "holds": "differences" if precision == "differences" else "values",
             "digest": digest({**parts, "indices": indices, "values": read})}  # fmt: skip
    tensor_files.write(path, FORMAT, tensors, facts)


def _read_values(
    values: dict[str, Tensor], indices: dict[str, Tensor], base: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """[k] float32 values, as a diff has them, from what is stored."""
    if base is None:
        return {name: value.float() for name, value in values.items()}
    return {name: before + values[name].float() for name, before in compact.values_of(base, indices).items()}


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


def header(path: Path) -> tuple[DiffInfo, dict[str, tuple[int, ...]], dict[str, str]]:
    """(facts, shapes of the masked tensors, digests of the base's) of a file that is not read further.

    Raises:
        ValueError: no diff of this library; damage elsewhere is not seen.
    """
    stored = seals.facts(path, FORMAT)
    with reading(path):
        facts = facts_in(stored)
        info, _ = facts.parted()
        if isinstance(facts, PlainFacts):
            return info, facts.shapes, facts.digests
        try:
            with safe_open(path, "pt") as file:
                return info, facts.shapes, compact.digests_in(file.get_tensor("digests"), facts)
        except SafetensorError as error:
            raise ValueError(str(error)) from error


def read(
    path: Path, base: Mapping[str, Tensor] | None = None, *, partly: bool = False
) -> tuple[dict[str, Any], Link | None]:
    """The fields of a `SparseDiff` from its file, all checked, and of a delta its link.

    Args:
        base: name -> tensor of the base, where the file holds differences to it.
        partly: without a base, take differences for the values: to see whether the file is whole.
    Raises:
        ValueError: missing, damaged, not finite, or not a diff of this library.
        BaseNeeded: the file holds differences, and there is no base.
    """
    tensors, stored = tensor_files.read(path, FORMAT)
    with reading(path):
        facts = facts_in(stored)
        info, link = facts.parted()
        plain = isinstance(facts, PlainFacts)
        parts, digests = (_plain(tensors), facts.digests) if plain else compact.unpack(tensors, facts)
    is_partly = not plain and facts.holds == "differences" and base is None
    if is_partly and not partly:
        raise BaseNeeded(path, info)
    if not plain and link is None:
        known = base if facts.holds == "differences" else None
        parts["values"] = _read_values(parts["values"], parts["indices"], known)
    with reading(path):
        _check(parts, facts.shapes, digests, info, is_delta=link is not None)
    check_finite(parts)
    if not plain and not is_partly and digest(parts) != facts.digest:
        known = " with this base, which may be another one" if facts.holds == "differences" else ""
        raise ValueError(f"{path} is damaged: it does not give the diff that was saved{known}")
    return {**parts, "shapes": facts.shapes, "digests": digests, "info": info}, link


def _plain(tensors: dict[str, Tensor]) -> Parts:
    parts: Parts = {part: {} for part in PARTS}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        if part not in PARTS or not name:
            raise ValueError(f"{key!r} is no part of a diff")
        parts[part][name] = tensor
    return parts


def _check(
    parts: Parts, shapes: dict[str, tuple[int, ...]], digests: dict[str, str], info: DiffInfo, is_delta: bool
) -> None:
    """Raise a ValueError unless names, shapes, types and positions belong together."""
    indices = parts["indices"]
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
