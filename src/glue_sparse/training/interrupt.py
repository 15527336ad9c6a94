"""Ctrl-C or SIGTERM during training: finish the step, with what is due there, save a checkpoint, stop."""

import signal
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from glue_sparse.writing.ending import SIGNALS, Interrupted


class SaveOnSignal(TrainerCallback):
    """Within `with`, the first signal asks for a checkpoint after the current step; a second one stops at once.

    An evaluation that is due at that step is done before, so that the resumed run is the uninterrupted one. It is the
    last callback of the Trainer, since it stops the run when the checkpoint is there. With several ranks the signals
    keep their usual meaning, since ranks would stop at different steps.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "SaveOnSignal":
        for kind in SIGNALS:
            if signal.getsignal(kind) is not signal.SIG_IGN:
                self._before[kind] = signal.signal(kind, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for kind, handler in self._before.items():
            signal.signal(kind, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        for kind, handler in self._before.items():
            signal.signal(kind, handler)
        print("\ninterrupted: saving a checkpoint as soon as possible (once more to stop at once)", flush=True)

    def stop(self) -> None:
        """Raise Interrupted where a signal has come."""
        if self.received is not None:
            raise Interrupted(number=self.received)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop here, with all that goes on need."""
        if self.received is not None:
            control.should_save = control.should_training_stop = True
            args.save_only_model = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Trainer ends the epoch where it stops; it comes here where only a best model is saved, and this is none."""
        if self.received is not None:
            control.should_log = control.should_evaluate = False
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called after a checkpoint is written: nothing more is to be done, and no other one to be deleted."""
        self.stop()
