"""The header of a safetensors file of ours, and its seal: the SHA-256 of the whole file in one fixed place of it."""

import hashlib
import logging
import math
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from glue_sparse.writing.fields import check_regular, json_object, typed

logger = logging.getLogger(__name__)

KEY = "glue_sparse"
"""The header's only entry: safetensors writes several in random order, and equal content should be equal bytes."""
TYPES = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "C64": ("complex64", 8), "BOOL": ("bool", 1),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1),
    "U64": ("uint64", 8), "U32": ("uint32", 4), "U16": ("uint16", 2), "U8": ("uint8", 1),
}  # fmt: skip
"""Types as safetensors write them -> (as torch does, bytes of an entry)."""
_VERSION, _UNSEALED = 2, 1
_PREFIX = f'{{"__metadata__":{{"{KEY}":"{{\\"sha256\\": \\"'.encode()
"""How the header of a sealed file begins, so that the seal is always in the same place."""
_PLACE = 8 + len(_PREFIX)
_BLANK = b"0" * 64
"""What stands in the place of the seal while it is computed."""
_CHUNK = 1 << 20
_MOST_HEADER = 100_000_000
"""Bytes, as safetensors have it: nothing longer is read because eight bytes say so."""
_LONGEST = 120
"""Characters of a cause that a message repeats."""


@dataclass(frozen=True)
class Layout:
    """Where one tensor lies."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """What a file says before its tensors.

    Attributes:
        facts: the JSON object of ours.
        tensors: name -> where it lies, seen from `start`.
        start: of the first tensor, in bytes.
    """

    facts: dict[str, Any]
    tensors: dict[str, Layout]
    start: int


@dataclass(frozen=True)
class Content:
    """A whole file, in memory once: what its seal was compared with is what is used.

    Attributes:
        facts: the JSON object of ours, without what belongs to its format.
        tensors: name -> where it lies in `data`.
        data: the bytes of all tensors, which may be written to.
    """

    facts: dict[str, Any]
    tensors: dict[str, Layout]
    data: memoryview


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the facts of every format have."""

    tensors: int | None = None
    """How many the file holds; none in unsealed files."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of a wrong value that the file `path` is damaged: a ValueError of one short sentence."""
    try:
        yield
    except (ValueError, OSError) as error:
        cause = " ".join(str(getattr(error, "strerror", None) or error).split())
        cause = cause if len(cause) <= _LONGEST else f"{cause[:_LONGEST]}..."
        raise ValueError(f"{path} is missing or damaged: {cause}") from error


def to_seal(kind: str, num_tensors: int, facts: dict[str, Any]) -> dict[str, Any]:
    """The JSON object to write into the header of a file of this kind, which `seal` completes."""
    own = {"sha256": _BLANK.decode(), "format": f"{kind} {_VERSION}"}
    return {**own, "tensors": num_tensors, **{key: value for key, value in facts.items() if key not in own}}


def seal(path: Path) -> None:
    """Put the SHA-256 into a file that was just written with `to_seal`."""
    with path.open("r+b") as file:
        if not _is_sealed(file):
            raise RuntimeError("safetensors begins a header in another way than before, so that no seal fits in")
        before = _at(file, 0, _PLACE)
        file.seek(_PLACE + len(_BLANK))
        found = _digest(before, iter(partial(file.read, _CHUNK), b""))
        file.seek(_PLACE)
        file.write(found)


def read(path: Path, kind: str) -> Content:
    """A file of this kind, whose seal is whole; one that is older and has none is read with a warning.

    Raises:
        ValueError: there is no such file, another kind, or one that is not byte for byte as it was written.
    """
    with reading(path):
        check_regular(path)
        with path.open("rb") as file:
            header, is_sealed = _header(file)
            content = memoryview(bytearray(_size(file)))
            file.seek(0)
            if file.readinto(content) != len(content):
                raise ValueError("it ends before its content does")
        end = _PLACE + len(_BLANK)
        if is_sealed and content[_PLACE:end] != _digest(content[:_PLACE], [content[end:]]):
            raise ValueError("its SHA-256 is not that of what it holds")
        version = _version(header.facts, kind)
    if version is None or (version == _VERSION) != is_sealed:
        raise ValueError(f"{path} is not a {kind} file, or its header is damaged")
    facts = {key: value for key, value in header.facts.items() if key != "format"}
    if is_sealed:
        facts.pop("sha256")
        with reading(path):
            if typed(int, facts.get("tensors"), "the number of tensors") != len(header.tensors):
                raise ValueError(f"it holds {len(header.tensors)} tensors of {facts['tensors']}")
    else:
        _announce(path)
    return Content(facts, header.tensors, content[header.start :])


def facts(path: Path, kind: str) -> dict[str, Any]:
    """What the header of a file of this kind says; its tensors and its seal are not looked at.

    Raises:
        ValueError: there is no such file, another kind, or no header.
    """
    with reading(path):
        check_regular(path)
        with path.open("rb") as file:
            found = _header(file)[0].facts
        version = _version(found, kind)
    if version is None:
        raise ValueError(f"{path} is not a {kind} file, or its header is damaged")
    return {key: value for key, value in found.items() if key not in ("format", "sha256")}


def is_kind(path: Path, kind: str) -> bool:
    """Whether a file's header says that it is of this kind; the seal is not looked at."""
    try:
        facts(path, kind)
    except ValueError:
        return False
    return True


def _version(facts: dict[str, Any], kind: str) -> int | None:
    return {f"{kind} {number}": number for number in (_UNSEALED, _VERSION)}.get(str(facts.get("format")))


def _header(file: BinaryIO) -> tuple[Header, bool]:
    """The header, which fits the file's size, and whether there is a seal in it; the tensors are not read."""
    is_sealed, size = _is_sealed(file), _size(file)
    length = struct.unpack("<Q", _at(file, 0, 8))[0]
    if length > min(size - 8, _MOST_HEADER):
        raise ValueError("it ends before its content does")
    stored = json_object(_at(file, 8, length), "its header")
    facts = typed(dict[str, str], stored.pop("__metadata__", {}), "its header").get(KEY, "{}")
    tensors = {name: _layout(name, one) for name, one in stored.items()}
    _check_layout(tensors, size - 8 - length)
    return Header(json_object(facts, "its header"), tensors, 8 + length), is_sealed


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _is_sealed(file: BinaryIO) -> bool:
    file.seek(8)
    return file.read(len(_PREFIX)) == _PREFIX


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    found = file.read(count)
    if len(found) != count:
        raise ValueError("it ends before its content does")
    return found


def _digest(before: bytes | memoryview, after: Iterable[bytes | memoryview]) -> bytes:
    """SHA-256 of what stands before the seal and after it."""
    sha = hashlib.sha256(before)
    for part in chain((_BLANK,), after):
        sha.update(part)
    return sha.hexdigest().encode()


def _layout(name: str, stored: Any) -> Layout:
    """Read without `typed`, since a file has hundreds of them."""
    if isinstance(stored, dict) and stored.keys() == {"dtype", "shape", "data_offsets"}:
        dtype, shape, place = stored["dtype"], stored["shape"], stored["data_offsets"]
        is_known = isinstance(dtype, str) and dtype in TYPES and isinstance(shape, list) and isinstance(place, list)
        numbers: list[Any] = [*shape, *place] if is_known else [None]
        if set(map(type, numbers)) == {int} and min(numbers) >= 0:
            return Layout(dtype, tuple(shape), tuple(place))
    raise ValueError(f"{name} has a type, a shape or a place that no tensor has")


def _check_layout(tensors: dict[str, Layout], num_bytes: int) -> None:
    """Raise a ValueError unless the tensors fill the file, one after the other."""
    end = 0
    for name, one in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        if one.data_offsets != (end, end + math.prod(one.shape) * TYPES[one.dtype][1]):
            raise ValueError(f"{name} does not lie where it should")
        end = one.data_offsets[1]
    if end != num_bytes:
        raise ValueError(f"its tensors take {end} bytes, and {num_bytes} are there")


@lru_cache(maxsize=1024)
def _announce(path: Path) -> None:
    """Once a process and file."""
    logger.warning("%s was written without a checksum, so damage to its numbers cannot be seen", path)
