"""What is due at an epoch's end happens with its last step, so that a checkpoint of that step holds it."""

from typing import Any

from transformers import DefaultFlowCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class EpochEnds(TrainerCallback):
    """Trainer logs, evaluates and saves at an epoch's end a second time after the step that ends it.

    A run that is resumed from a checkpoint of that step begins with the next epoch, and an evaluation that only came
    after it would be lost. Here all is due at once: first the log, then the evaluation, then the checkpoint.
    """

    def __init__(self) -> None:
        self._flow, self._done = DefaultFlowCallback(), -1

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called before the Trainer logs, evaluates and saves; the last step of all ends its epoch too."""
        if float(state.epoch or 0).is_integer() or state.global_step >= state.max_steps:
            self._flow.on_epoch_end(args, state, control)
            self._done = state.global_step

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Nothing is done twice; what ends an epoch at another place, as data without a length, is left to Trainer."""
        if self._done == state.global_step:
            control.should_log = control.should_evaluate = control.should_save = False
