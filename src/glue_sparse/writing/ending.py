"""How a command ends: normally, or with one sentence and a non-zero status; with a traceback where it is a bug."""

import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from glue_sparse.writing.leaving import with_a_word
from glue_sparse.writing.sentences import say
from glue_sparse.writing.words import shortened

OURS = Path(__file__).parents[1]
"""Folder of this package."""


SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What asks a command to end: Ctrl-C, another process, and a terminal that is closed."""

AGAIN = "stopped before the end; files that were written are whole, and the same command starts again"
"""What is said where nothing says more about what is kept."""


_KEPT: list[Callable[[], str]] = []
"""What the open blocks of `keeping` say, the innermost last."""


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal; the message says what is kept and how to go on."""

    def __init__(self, message: str = "", number: int = signal.SIGINT):
        super().__init__(message)
        self.number = number


@contextmanager
def one_sentence(status: int = 1, flags: Callable[[], Collection[str]] = tuple) -> Iterator[None]:
    """Turn a problem that the user can mend into `error: ...` on stderr and an exit status.

    A ValueError that some other package raised is no sentence of ours: its traceback is shown as well. A signal ends
    it with `interrupted: ...` and the status that shells give to it, 128 and its number.

    Args:
        status: of an error.
        flags: names of parameters; where a sentence has one in backticks it is written as it is typed, with dashes.
    """
    with stopping(flags):
        try:
            yield
        except (ValueError, OSError) as error:
            if isinstance(error, ValueError) and not is_ours(error):
                traceback.print_exception(error)
            say(f"error: {as_typed(_told(error), flags())}")
            sys.exit(status)


@contextmanager
def stopping(flags: Callable[[], Collection[str]] = tuple) -> Iterator[None]:
    """End the command with one sentence when a signal asks for it; see `one_sentence`, which has it."""
    try:
        with raising() if _alone() else with_a_word(SIGNALS[1:], lambda: as_typed(_kept(), flags())):
            yield
    except KeyboardInterrupt as error:
        say(f"interrupted: {as_typed(str(error) or AGAIN, flags())}")
        sys.exit(128 + getattr(error, "number", signal.SIGINT))


@contextmanager
def keeping(says: Callable[[], str]) -> Iterator[None]:
    """A signal within the block is told with what `says` gives then: what is kept, and how to go on."""
    _KEPT.append(says)
    try:
        yield
    except KeyboardInterrupt as error:
        if str(error):
            raise
        raise Interrupted(says(), getattr(error, "number", signal.SIGINT)) from error
    finally:
        _KEPT.remove(says)


def _kept() -> str:
    return _KEPT[-1]() if _KEPT else AGAIN


def _alone() -> bool:
    return os.environ.get("WORLD_SIZE", "1") == "1"


@contextmanager
def raising() -> Iterator[None]:
    """Within the block the first signal raises Interrupted, so that all is tidied up; the next ones act as before it.

    A process that was forked in the block has nothing to tidy. One of several ranks may wait for another where no
    exception can reach it, so that signals keep their usual meaning there, as those that are ignored do.
    """
    before: dict[signal.Signals, Any] = {}
    owner = os.getpid()

    def restore() -> None:
        for kind, handler in before.items():
            signal.signal(kind, handler)

    def interrupt(number: int, frame: FrameType | None) -> None:
        restore()
        if os.getpid() != owner:
            os.kill(os.getpid(), number)
            return
        raise Interrupted(number=number)

    if _alone() and threading.current_thread() is threading.main_thread():
        for kind in SIGNALS:
            if signal.getsignal(kind) not in (signal.SIG_IGN, None):
                before[kind] = signal.signal(kind, interrupt)
    try:
        with _once_more(lambda: [signal.signal(kind, interrupt) for kind in before]):
            yield
    finally:
        restore()


@contextmanager
def _once_more(arm: Callable[[], object]) -> Iterator[None]:
    """Within the block a signal that came where Python drops what is raised, as in a destructor, comes once more."""
    plain = sys.unraisablehook

    def again(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, Interrupted):
            plain(dropped)
            return
        arm()
        threading.Timer(0.01, os.kill, (os.getpid(), dropped.exc_value.number)).start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = plain


def _told(error: Exception) -> str:
    """What it says: of an error of the system its path and why; of ours all, line breaks of a user included.

    Others write several lines.
    """
    if isinstance(error, OSError) and error.errno and error.filename is not None:
        return f"{shortened(error.filename)}: {error.strerror}"
    return str(error) if is_ours(error) else " ".join(str(error).split())


def is_ours(error: BaseException) -> bool:
    """Whether this package raised it, and said what is to be done."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(OURS)


def as_typed(sentence: str, flags: Collection[str]) -> str:
    """A sentence of the library with its parameters as flags: `density` becomes --density."""
    return re.sub(r"`(\w+)`", lambda found: f"--{found[1]}" if found[1] in flags else found[0], sentence)
