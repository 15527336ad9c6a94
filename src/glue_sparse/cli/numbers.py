"""A number on the command line of a sub-command: with its bounds, which its help shows."""

from typing import Any

from glue_sparse.writing.bounds import FINITE, Bounds, Number


def add_number(parser: Any, *flags: str, kind: type, help: str, bounds: Bounds = FINITE, **options: Any) -> None:
    """Add a flag that takes one number, or several by `nargs`; anything out of its bounds is refused.

    Args:
        parser: an ArgumentParser, or a group of one.
        kind: int or float.
        options: of `add_argument`.
    """
    shown = help if bounds == FINITE else f"{help} ({bounds})"
    parser.add_argument(*flags, type=Number(kind, bounds), help=shown, **options)
