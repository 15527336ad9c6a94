"""How the sub-commands end: as `writing.ending` has it, with parameters named as flags."""

from contextlib import AbstractContextManager

from glue_sparse.experiments.told import command_line
from glue_sparse.writing import ending

_MORE = {"revisions", "tau", "tensor", "tune_values"}
"""Flags of sub-commands that training does not have."""


def one_sentence(status: int = 1) -> AbstractContextManager[None]:
    """See `writing.ending.one_sentence`."""
    return ending.one_sentence(status, lambda: {*command_line().flags, *_MORE})
