"""How a command ends: normally, or with one sentence and a non-zero status; with a traceback where it is a bug."""

import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

OURS = Path(__file__).parents[1]
"""Folder of this package."""


class Interrupted(Exception):
    """Stopped by a signal; the message says how to go on."""


@contextmanager
def one_sentence(status: int = 1, flags: Callable[[], Collection[str]] = tuple) -> Iterator[None]:
    """Turn a problem that the user can mend into `error: ...` on stderr and an exit status.

    A ValueError that some other package raised is no sentence of ours: its traceback is shown as well.

    Args:
        flags: names of parameters; where a sentence has one in backticks it is written as it is typed, with dashes.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if isinstance(error, ValueError) and not is_ours(error):
            traceback.print_exception(error)
        print(f"error: {as_typed(str(error), flags())}", file=sys.stderr)
        sys.exit(status)
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"interrupted: {as_typed(str(error), flags()) or 'nothing was saved'}", file=sys.stderr)
        sys.exit(130)


def is_ours(error: BaseException) -> bool:
    """Whether this package raised it, and said what is to be done."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(OURS)


def as_typed(sentence: str, flags: Collection[str]) -> str:
    """A sentence of the library with its parameters as flags: `density` becomes --density."""
    return re.sub(r"`(\w+)`", lambda found: f"--{found[1]}" if found[1] in flags else found[0], sentence)
