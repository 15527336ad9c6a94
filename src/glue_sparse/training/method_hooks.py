"""Tells a method, at each step of a Trainer, where training is."""

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from glue_sparse.methods.base import Moment, SparseMethod


class MethodHooks(TrainerCallback):
    """Tells the method where training is.

    Args:
        network: gives the model as it is then, without a distributed wrapper.
        moment: the Trainer's state -> where training is.
    """

    def __init__(
        self, method: SparseMethod, network: Callable[[], nn.Module], moment: Callable[[TrainerState], Moment]
    ):
        self.method, self.network, self.moment = method, network, moment

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called once per optimizer step, before its first micro-batch."""
        self.method.before_step(self.network(), self.moment(state))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called when gradients are complete and clipped; without them the optimizer's step does nothing at all."""
        moment = self.moment(state)
        if self.method.gradients_ready(self.network(), moment):
            for group in moment.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called after the optimizer's step."""
        self.method.after_step(self.network(), self.moment(state))
