"""Ctrl-C or SIGTERM during training: finish the step, with what is due there, save a checkpoint, stop."""

import signal
import time
from contextlib import ExitStack
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from glue_sparse.core import ranks
from glue_sparse.writing import leaving
from glue_sparse.writing.ending import SIGNALS, Interrupted

SAME = 5.0
"""Seconds in which signals to one of several ranks are the same one: a launcher passes on what
ranks have had from a scheduler themselves."""


class SaveOnSignal(TrainerCallback):
    """Within `with`, the first signal asks for a checkpoint after the current step; a second one stops at once.

    An evaluation that is due at that step is done before, so that the resumed run is the uninterrupted one. It is the
    last callback of the Trainer, since it stops the run when the checkpoint is there. Several ranks ask each other
    after each step, so that a signal to any of them stops all after the same one.
    """

    def __init__(self) -> None:
        self.told: signal.Signals | None = None
        """The first signal to this process."""
        self._since = 0.0
        self.received: signal.Signals | None = None
        """A signal to any rank, once all know of it."""
        self._before: dict[signal.Signals, Any] = {}
        self._open = ExitStack()
        self._meeting: ranks.Meeting | None = None

    def __enter__(self) -> "SaveOnSignal":
        self._meeting = ranks.Meeting()
        self._open.enter_context(leaving.waiting(self._waits))
        for kind in SIGNALS:
            if signal.getsignal(kind) is not signal.SIG_IGN and not leaving.is_left(kind):
                self._before[kind] = signal.signal(kind, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()
        self._put_back()

    def _put_back(self) -> None:
        for kind, handler in self._before.items():
            signal.signal(kind, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._put_back()
        self._waits(number)

    def _waits(self, number: int) -> bool:
        """Whether a signal waits for a checkpoint: the first one does."""
        if self.told is not None:
            return ranks.count() > 1 and time.monotonic() - self._since < SAME
        self._since = time.monotonic()
        self.told = signal.Signals(number)
        print("\ninterrupted: saving a checkpoint as soon as possible (once more to stop at once)", flush=True)
        return True

    def asked(self) -> bool:
        """Whether to save and stop; all ranks ask at the same places, and are told the same."""
        if self.received is None and self._meeting:
            number = self._meeting.largest(self.told or 0)
            self.received = signal.Signals(number) if number else None
        return self.received is not None

    def stop(self) -> None:
        """Raise Interrupted where a signal has come, once all ranks have written what they had to write."""
        if self.asked() and self.received and self._meeting:
            self._meeting.largest(0)
            raise Interrupted(number=self.received)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop here, with all that goes on need."""
        if self.asked():
            control.should_save = control.should_training_stop = True
            args.save_only_model = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Trainer ends the epoch where it stops; it comes here where only a best model is saved, and this is none."""
        if self.asked():
            control.should_log = control.should_evaluate = False
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called after a checkpoint is written: nothing more is to be done, and no other one to be deleted."""
        self.stop()
