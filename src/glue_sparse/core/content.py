"""SHA-256 of the content of any value, the same in every process, and facts that ranks compare by it."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence, Set
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from glue_sparse.core.digests import tensor_digest
from glue_sparse.writing.sentences import sentence

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_DEEPEST = 12
"""Levels of a value that are looked into; a container that holds itself is as deep as that."""


class Fact(NamedTuple):
    """What a message shows of a value, and the digest that it is compared by."""

    shown: str
    digest: str


MISSING = Fact("nothing", "")


def fact(value: Any, shown: str | None = None) -> Fact:
    """A value as a fact; `shown` is by default the value itself, shortened."""
    return Fact(sentence(_ADDRESS.sub("", repr(value)), 60) if shown is None else shown, content_digest(value))


def content_digest(value: Any) -> str:
    """SHA-256 of a value's content.

    Numbers, texts, tensors, arrays and images count by their bits, containers by their items, functions by their code
    and what they have bound, and other objects by their attributes. Addresses never count, nor do paths of files,
    which machines may have in different places.
    """
    sha = hashlib.sha256()
    _put(sha.update, value, 0, {})
    return sha.hexdigest()


def _put(update: Callable[[bytes], None], value: Any, depth: int, seen: dict[int, int]) -> None:
    """Write a value; an object that comes again is written as the number of its first place."""
    kind = type(value)
    update(f"<{kind.__module__}.{kind.__qualname__}:".encode())
    if value is None or kind in (bool, int, float, complex, str, bytes):
        update(repr(value).encode("utf-8", "surrogatepass"))
    elif id(value) in seen:
        update(str(seen[id(value)]).encode())
    elif depth < _DEEPEST:
        if hasattr(value, "__dict__"):
            seen[id(value)] = len(seen)
        for part in _parts(value):
            _put(update, part, depth + 1, seen)
    update(b">")


def _parts(value: Any) -> Sequence[Any]:
    """What a value consists of."""
    found: Sequence[Any] | None = None
    if isinstance(value, Tensor):
        found = [tensor_digest(value)]
    elif isinstance(value, nn.Module):
        found = [*value.named_parameters(), *value.named_buffers()]
    elif isinstance(value, torch.Generator):
        found = [value.get_state()]
    elif isinstance(value, Mapping):
        found = sorted(value.items(), key=lambda item: repr(item[0]))
    elif isinstance(value, list | tuple):
        found = [repr(value)] if _is_flat(value) else value
    elif isinstance(value, Set):
        found = sorted(map(repr, value))
    elif isinstance(value, Enum):
        found = [value.name]
    elif isinstance(value, type):
        found = [value.__module__, value.__qualname__]
    elif isinstance(value, PurePath):
        found = []
    return _parts_of_code(value) if found is None else found


def _parts_of_code(value: Any) -> Sequence[Any]:
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, FunctionType):
        bound = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        return [value.__qualname__, value.__code__, value.__defaults__, value.__kwdefaults__, bound]
    if isinstance(value, CodeType):
        return [value.co_code, value.co_names, value.co_consts]
    if str(getattr(value, "dtype", "")) == "object":
        return value.tolist()
    if hasattr(value, "tobytes"):  # arrays of numpy, images of PIL
        return [str(getattr(value, "dtype", "")), getattr(value, "shape", getattr(value, "size", ())), value.tobytes()]
    return [sorted(vars(value).items())] if hasattr(value, "__dict__") else [getattr(value, "__qualname__", "")]


def _is_flat(value: Sequence[Any]) -> bool:
    return all(type(one) in (bool, int, float, str) for one in value)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
