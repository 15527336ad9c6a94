"""How the sub-commands end: as `writing.ending` has it, with parameters named as flags."""

from argparse import Namespace
from contextlib import AbstractContextManager

from glue_sparse.experiments.told import command_line
from glue_sparse.writing import ending


def one_sentence(own: Namespace | None = None, *, status: int = 1) -> AbstractContextManager[None]:
    """See `writing.ending.one_sentence`; the flags are those of training, and a sub-command's `own`, as parsed."""
    return ending.one_sentence(status, lambda: {*command_line().flags, *vars(own or Namespace())})
