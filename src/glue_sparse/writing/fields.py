"""What others wrote, read as what it must be: regular files, JSON, and values of the types that a class states."""

import json
import math
import stat
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, overload

T = TypeVar("T")

DEEPEST = 100
"""Levels of lists and objects in one another: whoever walks through what was read is safe."""

_CONTAINERS = frozenset((dict, list))
"""What JSON nests."""
_LONGEST = 80
"""Characters of a wrong value that a message repeats."""


def check_regular(path: Path) -> None:
    """Raise an OSError for what is no file, and a ValueError for a pipe or a device, which might never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise IsADirectoryError(f"{path} is a folder") if path.is_dir() else ValueError(f"{path} is not a regular file")


def text_of(path: Path) -> str:
    """The text of a regular file.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it is no UTF-8, or a pipe or a device.
    """
    check_regular(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8") from error


def json_value(text: str | bytes, what: object, **options: Any) -> Any:
    """The value of a JSON text, which has finite numbers alone and each name of an object once.

    Args:
        what: where the text is from, for the message.
        options: of `json.loads`.
    Raises:
        ValueError: no JSON, NaN or infinite, nested too deeply, a name that is there twice, or an integer of more
            digits than Python reads.
    """
    hooks = {"parse_constant": _no_number, "parse_float": _finite, "object_pairs_hook": _each_once, **options}
    try:
        value = json.loads(text, **hooks)
    except RecursionError as error:
        raise ValueError(f"{what} is nested too deeply") from error
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{what} is no JSON that can be read: {error}") from error
    _check_depth(value, what)
    return value


def _check_depth(value: Any, what: object) -> None:
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(DEEPEST):
        if not level:
            return
        inside = [one.values() if type(one) is dict else one for one in level]
        level = [inner for one in inside if not _CONTAINERS.isdisjoint(map(type, one))
                 for inner in one if type(inner) in _CONTAINERS]  # fmt: skip
    raise ValueError(f"{what} is nested too deeply")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"{twice[:_LONGEST]!r} is there twice")
    return found


def _no_number(word: str) -> float:
    raise ValueError(f"{word[:_LONGEST]} is no number")


def json_object(text: str | bytes, what: object) -> dict[str, Any]:
    """The same for a text that must be an object."""
    return typed(dict[str, Any], json_value(text, what), what)


@overload
def typed(kind: type[T], value: Any, what: object) -> T: ...
@overload
def typed(kind: UnionType, value: Any, what: object) -> Any: ...
def typed(kind: Any, value: Any, what: object) -> Any:
    """A value that must be of a type, as JSON or YAML gave it; shortened in what is said of a wrong one.

    Args:
        kind: str, int, float, bool, None, Any, Literal, unions of them, list, tuple, dict with texts as keys, and
            dataclasses of such fields. A field without a default must be there; one that the class does not have must
            not. Integers are numbers too; true is no integer; numbers are finite.
        what: what the value is, for the message.
    Raises:
        ValueError: it is of another type; the message says where and what was found.
    """
    return _typed(kind, value, "", what)


def _typed(kind: Any, value: Any, where: str, what: object) -> Any:
    return _reader(kind)(kind, value, where, what)


@lru_cache(maxsize=256)
def _reader(kind: Any) -> Callable[[Any, Any, str, object], Any]:
    reader = _READERS.get(get_origin(kind) or kind)
    if reader is None and is_dataclass(kind):
        reader = _object
    if reader is None:
        raise TypeError(f"no reader for {kind}")
    return reader


class _Wrong(ValueError):
    """What is of another type than the `wanted` one."""

    def __init__(self, message: str, wanted: str, where: str):
        super().__init__(message)
        self.wanted, self.where = wanted, where


def _wrong(wanted: str, value: Any, where: str, what: object) -> _Wrong:
    found = "null" if value is None else repr(value)
    shown = found if len(found) <= _LONGEST else f"{found[:_LONGEST]}..."
    place = f"`{where.lstrip('.')}` of {what}" if where else str(what)
    return _Wrong(f"{place} must be {wanted}, not {shown}", wanted, where)


def _plain(wanted: str, fits: Callable[[Any], bool]) -> Callable[[Any, Any, str, object], Any]:
    def read(kind: Any, value: Any, where: str, what: object) -> Any:
        if not fits(value):
            raise _wrong(wanted, value, where, what)
        return value

    return read


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can be
        return False


def _choice(kind: Any, value: Any, where: str, what: object) -> Any:
    choices = get_args(kind)
    if not any(type(value) is type(one) and value == one for one in choices):
        raise _wrong(" or ".join(map(repr, choices)), value, where, what)
    return value


def _union(kind: Any, value: Any, where: str, what: object) -> Any:
    """The first that fits; where none does, all that would, or what is wrong within the one that is meant."""
    parts, wanted, within = get_args(kind), list[str](), list[ValueError]()
    if value is None and NoneType in parts:
        return None
    for part in (part for part in parts if part is not NoneType):
        try:
            return _typed(part, value, where, what)
        except ValueError as error:
            if isinstance(error, _Wrong) and error.where == where:
                wanted.append(error.wanted)
            else:
                within.append(error)
    if within:
        raise within[-1]
    raise _wrong(f"{', '.join(wanted[:-1])}{' or ' if wanted[1:] else ''}{wanted[-1]}", value, where, what)


def _list(kind: Any, value: Any, where: str, what: object) -> Any:
    """A list or a tuple of any length; JSON has lists for both."""
    if not isinstance(value, list | tuple):
        raise _wrong("a list", value, where, what)
    inner = (*get_args(kind), Any)[0]
    if inner in (int, str) and set(map(type, value)) <= {inner}:  # a file has hundreds of shapes
        return tuple(value) if get_origin(kind) is tuple else [*value]
    read = [_typed(inner, one, f"{where}[{index}]", what) for index, one in enumerate(value)]
    return tuple(read) if get_origin(kind) is tuple else read


def _dict(kind: Any, value: Any, where: str, what: object) -> Any:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _wrong("an object with texts as keys", value, where, what)
    _, inner = get_args(kind) or (str, Any)
    read = _reader(inner)
    return {key: read(inner, one, f"{where}.{key}", what) for key, one in value.items()}


_hints = lru_cache(maxsize=256)(get_type_hints)  # half of the time in which a grid's cells are checked


def _object(kind: Any, value: Any, where: str, what: object) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong("an object", value, where, what)
    known, hints = {one.name: one for one in fields(kind)}, _hints(kind)
    for name in value:
        if name not in known:
            raise ValueError(
                f"{what} has a field {str(name)[:_LONGEST]!r} in {where.lstrip('.') or 'it'} that is not known"
            )
    for name, one in known.items():
        if name not in value and one.default is MISSING and one.default_factory is MISSING:
            raise ValueError(f"{what} lacks `{f'{where}.{name}'.lstrip('.')}`")
    return kind(**{name: _typed(hints[name], one, f"{where}.{name}", what) for name, one in value.items()})


_READERS: dict[Any, Callable[[Any, Any, str, object], Any]] = {
    Any: _plain("anything", lambda value: True),
    str: _plain("a text", lambda value: isinstance(value, str)),
    bool: _plain("true or false", lambda value: isinstance(value, bool)),
    int: _plain("an integer", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: _plain("a finite number", _is_finite),
    NoneType: _plain("null", lambda value: value is None),
    Literal: _choice,
    Union: _union,
    UnionType: _union,
    list: _list,
    tuple: _list,
    dict: _dict,
}
