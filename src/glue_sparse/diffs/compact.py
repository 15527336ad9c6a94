"""The compact layout of a diff's file: positions as gaps in a Rice code, values one after the other, one of each.

Layout 1 has three tensors for each masked one, and eight bytes for each entry; this one about 5.2, or 3.2 with values
of two bytes. docs/files.md has the layout, and a reader of twenty lines in NumPy.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from glue_sparse.core import gaps
from glue_sparse.core.chosen import narrow
from glue_sparse.core.options import Precision
from glue_sparse.core.parametrization import read_entries
from glue_sparse.core.stored import check_like, check_shape
from glue_sparse.diffs.identity import CompactFacts
from glue_sparse.writing.seals import TYPES

Coded = dict[str, dict[str, tuple[int, ...]]]
"""Type of the values, as safetensors write it -> parameter name -> (entries, low bits, bytes of the code)."""
_FLOATS = {key: getattr(torch, name) for key, (name, _) in TYPES.items() if "float" in name}
_KINDS = {dtype: key for key, dtype in _FLOATS.items()}
_NONE = torch.zeros(0, 32, dtype=torch.uint8)
_WHOLE = "whole/"


def stored_values(
    values: Mapping[str, Tensor], indices: Mapping[str, Tensor], precision: Precision, base: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """What is stored of the values: see `Precision`; of those that lose nothing by it, bfloat16 in any case.

    Args:
        base: name -> the base's tensor; needed for differences.
    """
    if precision == "bfloat16":
        return {name: value.bfloat16() for name, value in values.items()}
    if precision == "differences":
        before = values_of(base or {}, indices)
        return {name: (value - before[name]).bfloat16() for name, value in values.items()}
    return {name: _shortest(value) for name, value in values.items()}


def _shortest(value: Tensor) -> Tensor:
    short = value.bfloat16()
    return short if torch.equal(short.float(), value) else value


def values_of(base: Mapping[str, Tensor], indices: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """[k] float32 values of the base at the positions of a diff.

    Raises:
        ValueError: the base lacks one of the tensors, or it is too small.
    """
    found = {}
    for name, index in indices.items():
        tensor = base.get(name)
        if tensor is None or (len(index) and int(index[-1]) >= tensor.numel()):
            raise ValueError(f"{name} of this diff is not in the base that was given")
        found[name] = read_entries(tensor, index.long().to(tensor.device)).float().cpu()
    return found


def pack(
    indices: Mapping[str, Tensor], values: Mapping[str, Tensor], whole: Mapping[str, Tensor], digests: Mapping[str, str]
) -> tuple[dict[str, Tensor], Coded]:
    """The tensors of a file, and what its header says of them; values of the types in which they are to be stored."""
    coded: Coded = {}
    codes, parts = [np.zeros(0, np.uint8)], list[Tensor]()
    for name in sorted(indices, key=lambda name: (_KINDS[values[name].dtype], name)):
        code, low_bits = gaps.encode(indices[name].numpy())
        codes.append(code)
        parts.append(values[name])
        coded.setdefault(_KINDS[values[name].dtype], {})[name] = (len(indices[name]), low_bits, len(code))
    found = {"gaps": torch.from_numpy(np.concatenate(codes))}
    hexed = "".join(digests[name] for rows in coded.values() for name in rows)
    found["digests"] = torch.frombuffer(bytearray.fromhex(hexed), dtype=torch.uint8).view(-1, 32) if hexed else _NONE
    for kind in coded:
        found[f"values/{kind}"] = torch.cat([part for part in parts if _KINDS[part.dtype] == kind])
    return {**found, **{f"{_WHOLE}{name}": tensor for name, tensor in whole.items()}}, coded


def num_bytes(
    indices: Mapping[str, Tensor], values: Mapping[str, Tensor], whole: Mapping[str, Tensor],
    precision: Precision = "float32",
) -> int:  # fmt: skip
    """Bytes of all tensors of a file; without the header."""
    stored = stored_values(values, indices, "float32" if precision == "float32" else "bfloat16", None)
    found, _ = pack(indices, stored, whole, dict.fromkeys(indices, "00" * 32))
    return sum(tensor.nbytes for tensor in found.values())


def unpack(tensors: dict[str, Tensor], facts: CompactFacts) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
    """`indices`, `values` as they are stored and `whole` by name, and the digests of the base's tensors.

    Raises:
        ValueError: tensors and header do not belong together.
    """
    whole = {key.removeprefix(_WHOLE): tensor for key, tensor in tensors.items() if key.startswith(_WHOLE)}
    rest = {key: tensor for key, tensor in tensors.items() if not key.startswith(_WHOLE)}
    rows = {name: row for named in facts.coded.values() for name, row in named.items()}
    if rest.keys() != {"gaps", "digests", *(f"values/{kind}" for kind in facts.coded)}:
        raise ValueError("its tensors are not those of a compact diff")
    if not rows.keys() <= facts.shapes.keys() or len(rows) != sum(map(len, facts.coded.values())):
        raise ValueError("it has entries of a tensor without a shape, or twice those of one")
    if any(len(row) != 3 or min(row) < 0 for row in rows.values()):
        raise ValueError("its header says of a tensor what cannot be")
    digests = digests_in(rest["digests"], facts)
    values: dict[str, Tensor] = {}
    for kind, named in facts.coded.items():
        counts = [count for count, _, _ in named.values()]
        found = rest[f"values/{kind}"]
        check_like(f"values/{kind}", found, (sum(counts),), _FLOATS.get(kind, torch.bool))
        values |= dict(zip(named, found.split(counts), strict=True))
    indices = _positions(rest["gaps"], rows, facts.shapes)
    return {"indices": indices, "values": values, "whole": whole}, digests


def digests_in(tensor: Tensor, facts: CompactFacts) -> dict[str, str]:
    """Parameter name -> SHA-256 of the base's tensor; ValueError where there are not as many."""
    names = [name for rows in facts.coded.values() for name in rows]
    check_like("digests", tensor, (len(names), 32), torch.uint8)
    return {name: one.tobytes().hex() for name, one in zip(names, tensor.numpy(), strict=True)}


def _positions(
    code: Tensor, rows: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    check_like("gaps", code, (sum(num_bytes for _, _, num_bytes in rows.values()),), torch.uint8)
    stored, begin, found = code.numpy(), 0, {}
    for name, (count, low_bits, num_bytes) in rows.items():
        num_entries = check_shape(name, shapes[name])
        positions = gaps.decode(stored[begin : begin + num_bytes], count, low_bits)
        if count and positions[-1] >= num_entries:  # before they are made int32
            raise ValueError(f"positions of {name} do not fit its shape: they are outside of it")
        found[name] = narrow(torch.from_numpy(positions), num_entries)
        begin += num_bytes
    return found
