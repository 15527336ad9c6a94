"""Numbers of the Trainer's flags that have no meaning outside their bounds, refused before anything is loaded."""

import math
from dataclasses import dataclass

from transformers import TrainingArguments


@dataclass(frozen=True)
class Bounds:
    """From where to where a number may be, and whether the end belongs to it."""

    least: float
    most: float = math.inf
    open_end: bool = False

    def __contains__(self, number: float) -> bool:
        return self.least <= number < self.most if self.open_end else self.least <= number <= self.most

    def __str__(self) -> str:
        if self.most == math.inf:
            return f"{self.least:g} or more"
        return f"from {self.least:g} to {'below ' if self.open_end else ''}{self.most:.10g}"


BOUNDS = {
    "per_device_train_batch_size": Bounds(1), "per_device_eval_batch_size": Bounds(1),
    "gradient_accumulation_steps": Bounds(1), "num_train_epochs": Bounds(0), "dataloader_num_workers": Bounds(0),
    "seed": Bounds(0, 2**32 - 1), "learning_rate": Bounds(0), "weight_decay": Bounds(0), "adam_epsilon": Bounds(0),
    "adam_beta1": Bounds(0, 1, open_end=True), "adam_beta2": Bounds(0, 1, open_end=True),
    "label_smoothing_factor": Bounds(0, 1, open_end=True), "warmup_steps": Bounds(0),
}  # fmt: skip


def check_numbers(args: TrainingArguments) -> None:
    """Raise a ValueError for the first number that is out of its bounds, or no finite one."""
    for name, bounds in BOUNDS.items():
        number = getattr(args, name)
        if isinstance(number, int | float) and (number not in bounds or math.isinf(number)):
            raise ValueError(f"`{name}` is {bounds}, not {number:g}")
