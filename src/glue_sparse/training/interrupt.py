"""Ctrl-C or SIGTERM during training: finish the step, save a checkpoint, stop."""

import signal
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class SaveOnSignal(TrainerCallback):
    """Within `with`, the first SIGINT or SIGTERM asks for a checkpoint after the current step; a second one kills.

    With several ranks the signals keep their usual meaning, since ranks would stop at different steps.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "SaveOnSignal":
        for kind in (signal.SIGINT, signal.SIGTERM):
            self._before[kind] = signal.signal(kind, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for kind, handler in self._before.items():
            signal.signal(kind, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        signal.signal(number, self._before[signal.Signals(number)])
        print("\ninterrupted: saving a checkpoint as soon as possible (once more to stop at once)", flush=True)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Save and stop here."""
        if self.received:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Trainer ends the epoch too; nothing is to be evaluated or saved twice."""
        if self.received:
            control.should_evaluate = control.should_save = False
        return control
