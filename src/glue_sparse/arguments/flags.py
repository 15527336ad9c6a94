"""A flag and its facts: what it takes, in which bounds, what it is for and needs, and if --help shows it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from glue_sparse.writing import bounds as number_bounds
from glue_sparse.writing.bounds import FINITE, LARGEST, Bounds

Needs = Mapping[str, tuple[Any, ...]]
"""Other flag -> its values with which a flag has an effect, none: all but its default; one of these flags is enough."""


def arg(
    default: Any,
    help: str,
    *,
    methods: Iterable[str] = (),
    tasks: Iterable[str] = (),
    rare: bool = False,
    least: float = -LARGEST,
    most: float = LARGEST,
    above: float | None = None,
    below: float | None = None,
    needs: Needs | None = None,
    aliases: Iterable[str] = (),
    reads: bool = False,
    repeats: bool = False,
) -> Any:
    """A field of a group of flags.

    Args:
        default: a list stands for a new one each time.
        methods, tasks: the only ones that it is for; none: for all.
        rare: --help leaves it to --help_all.
        least, most: smallest and largest value of a number.
        above, below: the same where the end itself is no value.
        needs: flags without which it has no effect.
        aliases: further spellings, dashes and all.
        reads: its value may be a path that a run reads, and must not replace.
        repeats: of many values: given again, it adds to those of before.
    """
    ends = Bounds(least if above is None else above, most if below is None else below, above is not None,
                  below is not None)  # fmt: skip
    facts = {"help": help, "methods": (*methods,), "tasks": (*tasks,), "rare": rare, "bounds": ends,
             "needs": needs or {}, "aliases": (*aliases,), "reads": reads, "repeats": repeats}  # fmt: skip
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
        bounds: of a number.
        needs: flags without which it has no effect.
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
    bounds: Bounds = FINITE
    needs: Needs = field(default_factory=dict, hash=False)
    aliases: tuple[str, ...] = ()
    reads: bool = False
    repeats: bool = False

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers, for which the bounds are."""
        return self.kind in (int, float) and not self.choices


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


def check_bounds(group: Any, flags: Iterable[Flag] | None = None) -> None:
    """Raise a ValueError for a number of a group of flags that is out of its bounds.

    Args:
        group: an object with a value for each flag.
        flags: by default those that its dataclass describes.
    """
    for flag in flags_of(type(group)) if flags is None else flags:
        if flag.is_number:
            number_bounds.check(flag.name, getattr(group, flag.name), flag.bounds, flag.kind)


def check_needs(flags: Mapping[str, Flag], values: Mapping[str, Any], given: Iterable[str]) -> None:
    """Raise a ValueError for a flag that has no effect with the values that other flags have.

    Args:
        values: flag -> its value.
        given: the flags that were typed; what a YAML says is for many runs, and may not matter for one.
    """
    for flag in (flags[name] for name in given):
        if values[flag.name] == flag.default or not flag.needs:
            continue
        if not any(_holds(flags[other], values[other], wanted) for other, wanted in flag.needs.items()):
            raise ValueError(f"`{flag.name}` has no effect {_lack(flag.needs, values)}")


def _lack(needs: Needs, values: Mapping[str, Any]) -> str:
    """What keeps a flag from having an effect, and what to do."""
    if sum(map(len, needs.values())) > 6:  # too many to list
        found = " and ".join(f"`{other}` {_typed(values[other])}" for other in needs)
        return f"with {found}: leave it out"
    ways = [" ".join([f"`{other}`", " or ".join(map(_typed, wanted))]).strip() for other, wanted in needs.items()]
    return f"without {', or '.join(ways)}: leave it out, or give that"


def _holds(flag: Flag, value: Any, wanted: tuple[Any, ...]) -> bool:
    return value in wanted if wanted else value != flag.default


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def belongs(flag: Flag, chosen: str, name: str, takes: Iterable[str] = ()) -> bool:
    """Whether a method or task has a use for a flag; see `check_belongs`."""
    known = getattr(flag, f"{chosen}s")
    return not known or name in known or flag.name in takes


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
        if not belongs(flag, chosen, name, takes) and values(flag.name) != flag.default:
            known = getattr(flag, f"{chosen}s")
            if len(known) > 10:  # too many to list
                raise ValueError(f"--{flag.name} is not for --{chosen} {name}")
            raise ValueError(f"--{flag.name} goes with --{chosen} {' or '.join(known)}, not with {name}")


def build(group: type, values: Mapping[str, Any]) -> Any:
    """A dataclass of flags, from the values of all flags."""
    return group(**{one.name: values[one.name] for one in fields(group) if one.init and one.name in values})
