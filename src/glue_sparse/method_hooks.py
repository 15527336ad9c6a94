"""Tells a method, at each step of a Trainer, where training is."""

from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from glue_sparse.methods.base import Moment

if TYPE_CHECKING:
    from glue_sparse.trainer import SparseTrainer


class MethodHooks(TrainerCallback):
    """Tells the method where training is."""

    def __init__(self, trainer: "SparseTrainer"):
        self.trainer = trainer

    def _moment(self, state: TrainerState) -> Moment:
        trainer = self.trainer
        assert isinstance(trainer.optimizer, torch.optim.Optimizer)
        share = (trainer.args.process_index, trainer.args.world_size)
        draw = lambda count, number: trainer.sample_batches(count, share, number)  # noqa: E731
        return Moment(
            state.global_step, state.max_steps, trainer.num_epochs, trainer.optimizer, trainer.head, draw,
            trainer._add_over_ranks,
        )  # fmt: skip

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called once per optimizer step, before its first micro-batch."""
        self.trainer.method.before_step(self.trainer.network, self._moment(state))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called when gradients are complete and clipped; without them the optimizer's step does nothing at all."""
        moment = self._moment(state)
        if self.trainer.method.gradients_ready(self.trainer.network, moment):
            for group in moment.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called after the optimizer's step."""
        self.trainer.method.after_step(self.trainer.network, self._moment(state))
