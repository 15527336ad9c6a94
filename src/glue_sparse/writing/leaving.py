"""How one of several ranks leaves when a signal asks it to: with its sentence, at once, and whatever it waits for.

It may wait for the others in code of the backend, where Python's handlers do not run and an exception would come late.
So a thread hears of the signal and ends the process, as the signal itself would have, but not without a word; where a
run can save a checkpoint first (`waiting`), the first signal waits for that.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from glue_sparse.writing.sentences import say

_OPEN: list[dict[signal.Signals, Any]] = []
"""What signals did before each block that is open."""
_WAITING: list[Callable[[int], bool]] = []
"""What the open blocks of `waiting` say, the innermost last."""


@contextmanager
def with_a_word(kinds: Sequence[signal.Signals], says: Callable[[], str]) -> Iterator[None]:
    """Within the block, one of these signals ends this process with what `says` gives then, if it would have ended it.

    Of blocks within each other the innermost speaks.
    """
    before = {kind: signal.getsignal(kind) for kind in kinds}
    before = {kind: handler for kind, handler in before.items() if handler in (signal.SIG_DFL, _left_to_the_thread)}
    for kind in before:
        signal.signal(kind, _left_to_the_thread)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _OPEN.append(before)
    threading.Thread(target=_leave, args=(reader, {int(kind) for kind in before}, says), daemon=True).start()
    try:
        yield
    finally:
        _put_back(_OPEN.pop(), earlier)
        os.close(writer)  # which ends the thread


@contextmanager
def waiting(asked: Callable[[int], bool]) -> Iterator[None]:
    """Within the block a signal ends this process unless `asked`, told its number by the thread, says that it waits."""
    _WAITING.append(asked)
    try:
        yield
    finally:
        _WAITING.remove(asked)


def is_left(kind: signal.Signals) -> bool:
    """Whether the thread is the one that hears of a signal."""
    return signal.getsignal(kind) is _left_to_the_thread


def _left_to_the_thread(number: int, frame: FrameType | None) -> None:
    """A handler of Python's must be there for the thread to hear of a signal."""


def _leave(reader: int, numbers: set[int], says: Callable[[], str]) -> None:
    while came := os.read(reader, 1):  # of every signal that Python handles
        if came[0] in numbers and not any(asked(came[0]) for asked in _WAITING[-1:]):
            try:
                say(f"interrupted: {says()}")
            finally:
                os._exit(128 + came[0])
    os.close(reader)


def _put_back(before: dict[signal.Signals, Any], wakeup: int) -> None:
    signal.set_wakeup_fd(wakeup)
    for kind, handler in before.items():
        signal.signal(kind, handler)


def _in_child() -> None:
    """A forked worker of a loader ends as any process, and alone."""
    if _OPEN:
        _put_back(_OPEN[0], -1)
        _OPEN.clear()


os.register_at_fork(after_in_child=_in_child)
