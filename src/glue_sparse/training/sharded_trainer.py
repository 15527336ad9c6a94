"""Trainers whose frozen base is shared out over ranks where FSDP is asked for."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import Trainer

from glue_sparse.core.ledger import Ledger
from glue_sparse.training.sharded import Plan, kept_from_accelerate, plan_of

if TYPE_CHECKING:
    _Trainer = Trainer
else:
    _Trainer = object


class ShardsBase(_Trainer):
    """Put before a Trainer of transformers, it shares the base of an attached model out before it trains.

    Attributes:
        plan: how; none where the base is whole on each rank.
        ledger: what this rank has handed to collectives in the second step that it made.
    """

    plan: Plan | None = None
    ledger: Ledger
    _counted_step: int | None = None

    @property
    def network(self) -> nn.Module:
        """The model itself, without a distributed wrapper."""
        assert isinstance(self.model, nn.Module)
        return self.model

    def create_accelerator_and_postprocess(self) -> None:
        """As in `Trainer`; FSDP is no matter of accelerate's, see `sharded`."""
        self.plan, self.ledger = self.plan or plan_of(self.args), Ledger()
        with kept_from_accelerate(self.args):
            super().create_accelerator_and_postprocess()

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As in `Trainer`; gradients are exchanged with the last micro-batch of a step."""
        if not self.plan:
            return super().training_step(*args, **kwargs)
        network: Any = self.network
        network.set_requires_gradient_sync(self.accelerator.sync_gradients)
        step = self.state.global_step
        if self._counted_step is None:  # the second, since before the first the model may have been asked for a loss
            self._counted_step = min(step + 1, self.state.max_steps - 1)
        counts = step == self._counted_step and not self.args.torch_compile
        with self.ledger if counts else nullcontext():
            return super().training_step(*args, **kwargs)

    def facts(self) -> dict[str, Any]:
        """What a run's result says of this kind of training alone."""
        if not self.plan:
            return {}
        told = {"num_ranks": self.args.world_size, "handed_in_per_step": dict(self.ledger.handed_in),
                "sent_per_step": dict(self.ledger.sent)}  # fmt: skip
        return {"communication": told}

    def model_to_choose_by(self) -> nn.Module:
        """What a method looks at: the model, or a copy of it that is shared out."""
        return self.plan.to_choose_by(self.network, self.args.device.type) if self.plan else self.network

    # Private to transformers 5: tests/training/test_private_hooks.py holds their names and parameters.

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`, with the base shared out before the optimizer is made."""
        if self.plan:
            self.plan.apply(self.network, getattr(self, "head", None), self.args.device.type)
            self.is_distributed_loading_by_transformers = True  # so that nothing else is put around the model
        return super()._prepare_for_training(*args, **kwargs)

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """As in `Trainer`, but not where the whole model may not fit there."""
        if not (self.plan and self.plan.chooses_on_shards):
            super()._move_model_to_device(model, device)

    def _defer_fsdp_gradient_reduction(self) -> Any:
        """Nothing to do: `training_step` says when gradients are exchanged."""
        return nullcontext()

    def _sync_replicated_trainable_parameters(self, model: nn.Module) -> None:
        """Nothing to do: `core.sharding.shard` has seen to it."""
