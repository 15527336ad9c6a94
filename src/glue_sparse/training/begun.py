"""Says that training has begun: that a whole step worked, with its batch, its optimizer and its schedule."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Begun(TrainerCallback):
    """Calls `tell` after the first step; where a Trainer does not train itself, whoever trains calls this."""

    def __init__(self, tell: Callable[[], None]):
        self.tell, self.told = tell, False

    def __call__(self) -> None:
        if not self.told:
            self.told = True
            self.tell()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called before a checkpoint of the step is saved."""
        self()
