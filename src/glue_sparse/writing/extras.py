"""Packages of the extras: imported when they are needed, and one sentence where they are not installed."""

from importlib import import_module
from typing import Any


class MissingExtra(ValueError):
    """A package of an extra is not installed."""


def missing(what: str, extra: str) -> MissingExtra:
    """The error that says which extra `what` needs."""
    return MissingExtra(f'{what} needs a package that is not installed: pip install "glue_sparse[{extra}]"')


def needed(module: str, what: str, extra: str) -> Any:
    """Import a module that an extra brings.

    Args:
        what: what is not to be had without it; the sentence begins with it.
    Raises:
        MissingExtra: it is not installed. One that is installed and broken raises what it raises.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise missing(what, extra) from error
