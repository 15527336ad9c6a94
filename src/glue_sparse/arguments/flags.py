"""A flag and its facts: what it takes, what it is for, which methods or tasks it belongs to, if --help shows it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def arg(
    default: Any,
    help: str,
    *,
    methods: Iterable[str] = (),
    tasks: Iterable[str] = (),
    rare: bool = False,
    least: float | None = None,
    aliases: Iterable[str] = (),
    reads: bool = False,
) -> Any:
    """A field of a group of flags.

    Args:
        default: a list stands for a new one each time.
        methods, tasks: the only ones that it is for; none: for all.
        rare: --help leaves it to --help_all.
        least: smallest value of a number.
        aliases: further spellings, dashes and all.
        reads: its value may be a path that a run reads, and must not replace.
    """
    facts = {"help": help, "methods": (*methods,), "tasks": (*tasks,), "rare": rare, "least": least,
             "aliases": (*aliases,), "reads": reads}  # fmt: skip
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=facts)
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class Flag:
    """One flag of the command line.

    Attributes:
        group: title of the group that --help shows it in.
        kind: of a value, or of each where it takes `many`.
        optional: whether it may be none; only a bool that may not can be given without a value.
        choices: the only values, where they are few.
    """

    name: str
    group: str
    kind: type
    default: Any
    help: str = ""
    many: bool = False
    optional: bool = False
    choices: tuple[Any, ...] = ()
    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    rare: bool = False
    least: float | None = None
    aliases: tuple[str, ...] = ()
    reads: bool = False


@lru_cache(maxsize=64)
def flags_of(group: type, title: str = "") -> tuple[Flag, ...]:
    """The flags that a dataclass of `arg` fields describes; every run of a grid asks for them."""
    hints = get_type_hints(group)
    return tuple(_flag(one, hints[one.name], title) for one in fields(group) if one.init and one.metadata)


def _flag(one: Field, hint: Any, title: str) -> Flag:
    parts = [part for part in get_args(hint) if part is not NoneType] if _is_union(hint) else [hint]
    (kind,), optional = parts, _is_union(hint) and NoneType in get_args(hint)
    many, choices = get_origin(kind) is list, ()
    if many:
        (kind,) = get_args(kind)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        kind = type(choices[0])
    default = one.default_factory() if one.default_factory is not MISSING else one.default
    return Flag(one.name, title, kind, default, many=many, optional=optional, choices=choices, **one.metadata)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def check_bounds(group: Any) -> None:
    """Raise a ValueError for a number of a group of flags that is below the least that makes sense."""
    for one in fields(group):
        least, value = one.metadata.get("least"), getattr(group, one.name)
        if least is not None and value is not None and value < least:
            raise ValueError(f"--{one.name} must be at least {least}, got {value}")


def check_belongs(
    flags: Iterable[Flag], values: Callable[[str], Any], chosen: str, name: str, takes: Iterable[str] = ()
) -> None:
    """Raise a ValueError for a flag that the chosen method or task would ignore.

    Args:
        values: name of a flag -> its value.
        chosen: `method` or `task`.
        name: of the method or task.
        takes: flags that it understands although they do not know it.
    """
    for flag in flags:
        known = getattr(flag, f"{chosen}s")
        if known and name not in known and flag.name not in takes and values(flag.name) != flag.default:
            if len(known) > 10:  # too many to list
                raise ValueError(f"--{flag.name} is not for --{chosen} {name}")
            raise ValueError(f"--{flag.name} goes with --{chosen} {' or '.join(known)}, not with {name}")


def build(group: type, values: Mapping[str, Any]) -> Any:
    """A dataclass of flags, from the values of all flags."""
    return group(**{one.name: values[one.name] for one in fields(group) if one.init and one.name in values})
