"""The page of `train --help`: all flags, or those that a method or task takes which was named, with their defaults."""

from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from glue_sparse.arguments.flags import Flag
from glue_sparse.arguments.method import PRUNED
from glue_sparse.arguments.moving import MOVING, SCORED, SPARSE

HELP = ("-h", "--help", "--help_all")
Fits = Callable[[str, str, Flag], bool]
"""(`method` or `task`, its name, flag) -> whether it has a use for the flag."""
_FAMILIES = {
    "Entries by a score": SCORED, "Pruned first": PRUNED, "Sparse from the start": SPARSE, "Weights that move": MOVING
}  # fmt: skip
"""Title of flags that some methods share -> these methods."""


class Page(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Shows what a page begins with as it is written, and a default where there is one."""

    def _get_help_string(self, action: Any) -> str | None:
        if action.default not in (None, []):
            return super()._get_help_string(action)
        return action.help and action.help.replace("; default: %(default)s", "")


def fitting(flags: Iterable[Flag], chosen: Mapping[str, str], fits: Fits) -> list[Flag]:
    """The flags that the chosen method and task take: first what is theirs, rare or not, then what is for all.

    Args:
        chosen: `method` or `task` -> its name.
    """
    own, general = [], []
    for flag in flags:
        if not all(fits(kind, name, flag) for kind, name in chosen.items()):
            continue
        kinds = [kind for kind in chosen if getattr(flag, f"{kind}s")]
        title = _title(flag, kinds[0], chosen[kinds[0]]) if kinds else ""
        (own if kinds else general).append(replace(flag, group=title, rare=False) if kinds else flag)
    return [*sorted(own, key=lambda flag: flag.group), *general]


def _title(flag: Flag, kind: str, name: str) -> str:
    """Of the largest family that the method is in and that takes this flag; by default the method's or task's own."""
    shared = [title for title, family in _FAMILIES.items() if kind == "method" and name in family
              and {*family} <= {*flag.methods}]  # fmt: skip
    return max(shared, key=lambda title: len(_FAMILIES[title]), default=f"{kind.capitalize()} {name}")
