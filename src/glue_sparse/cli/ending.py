"""How the sub-commands end: as `writing.ending` has it, with parameters named as flags; and what they read stays."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from glue_sparse.experiments.told import command_line
from glue_sparse.writing import aside, ending
from glue_sparse.writing.files import paths, protecting

_WRITTEN = ("out", "folder", "output")
"""What sub-commands call a file or folder that they write."""


@contextmanager
def one_sentence(own: Namespace | None = None, *, status: int = 1) -> Iterator[None]:
    """See `writing.ending.one_sentence`; the flags are those of training, and a sub-command's `own`, as parsed.

    Files that `own` names are not replaced, unless they are there to be written.
    """
    told = vars(own or Namespace())
    read = [value for name, value in told.items() if name not in _WRITTEN]
    with ending.one_sentence(status, lambda: {*command_line().flags, *told}), protecting(read):
        for path in paths(told.values()):
            aside.mend_near(path)
        yield
