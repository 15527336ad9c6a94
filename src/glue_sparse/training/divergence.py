"""A training whose loss or values are no longer finite stops there: before anything of it is written."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from glue_sparse.core import ranks
from glue_sparse.core.active import active_tensors
from glue_sparse.core.finite import first_not_finite
from glue_sparse.core.parametrization import persistent_buffers
from glue_sparse.writing.files import without_infinite

ADVICE = "lower `learning_rate`, or clip with `max_grad_norm`"


class Diverged(ValueError):
    """Losses or values that are not finite, in one sentence."""


def check_loss(loss: Tensor | float, step: int, learning_rate: float) -> None:
    """Raise `Diverged` for a loss that is not finite."""
    if not bool(torch.as_tensor(loss).isfinite()):
        raise Diverged(f"the loss of step {step} is not finite at learning rate {learning_rate:g}, so training stops "
                       f"there and nothing of it is saved: {ADVICE}")  # fmt: skip


def check_workers(losses: list[float], agree: Callable[[str], bool], step: int, learning_rate: float) -> None:
    """Raise `Diverged` on every process if any worker's mean loss since the last merge is not finite."""
    sound = all(map(math.isfinite, losses))
    if not agree(f"finite: {sound}") or not sound:
        check_loss(math.nan, step, learning_rate)


def check_metrics(metrics: Mapping[str, float], step: int, learning_rate: float) -> None:
    """Raise `Diverged` for a loss of an evaluation that is not finite."""
    for name, value in metrics.items():
        if name.endswith("loss") and not math.isfinite(value):
            raise Diverged(f"{name} is {value} after step {step} at learning rate {learning_rate:g}, so training stops "
                           f"there: {ADVICE}")  # fmt: skip


def check_values(model: nn.Module, step: int, learning_rate: float) -> None:
    """Raise `Diverged` that names a trained tensor with NaN or an infinite number."""
    trained: dict[str, Tensor] = {name: entries.values for name, entries in active_tensors(model)}
    seen = {id(values) for values in trained.values()}
    trained |= {name: p for name, p in model.named_parameters() if p.requires_grad and id(p) not in seen}
    if name := first_not_finite(trained, persistent_buffers(model)):
        raise Diverged(f"{name} holds values that are not finite after step {step} at learning rate "
                       f"{learning_rate:g}, so training stops there and nothing of it is saved: {ADVICE}")  # fmt: skip


def check_chooser(metrics: Mapping[str, float], args: TrainingArguments, step: int) -> None:
    """Raise `Diverged` where the metric that chooses the best model is infinite: nothing could be better."""
    name = args.metric_for_best_model
    value = metrics.get(name if name.startswith("eval_") else f"eval_{name}") if name else None
    if isinstance(value, float) and math.isinf(value):
        raise Diverged(f"{name} is {value} after step {step}, and chooses the best model by `metric_for_best_model`: "
                       "choose by another one")  # fmt: skip


def keep_finite(state: TrainerState) -> None:
    """Write None for what is not finite in the last line of a history, and for a best metric that nothing has set."""
    state.log_history[-1:] = without_infinite(state.log_history[-1:])
    state.best_metric = without_infinite(state.best_metric)


class StopOnDivergence(TrainerCallback):
    """Looks at every step's loss before the optimizer does, and at the values before anything is saved.

    Where a look would make a GPU wait, and the user has asked Trainer not to look either (`logging_nan_inf_filter`
    false), losses are gathered and looked at when the run logs, evaluates, saves or ends. Gradients are not looked at:
    fp16 leaves out the steps in which they overflow. All ranks stop together.

    Args:
        network: gives the model as it is then, without a distributed wrapper.
    """

    def __init__(self, network: Callable[[], nn.Module]):
        self.network = network
        self._bad: Tensor | None = None
        self._trains = False

    def note(self, loss: Tensor) -> None:
        """The loss of a micro-batch."""
        bad = (~loss.detach().isfinite().all()).float()
        self._bad = bad if self._bad is None else self._bad.to(bad.device) + bad

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Nothing has been seen."""
        self._bad, self._trains = None, True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluations from here on are the user's."""
        self._trains = False

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called before the Trainer saves."""
        if self._trains:
            check_metrics(kwargs["metrics"], state.global_step, _rate(kwargs["optimizer"]))
            check_chooser(kwargs["metrics"], args, state.global_step)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called when a step's gradients are complete."""
        if args.device.type == "cpu" or args.logging_nan_inf_filter:
            self._check_losses(state.global_step + 1, kwargs["optimizer"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called before the Trainer logs, evaluates and saves."""
        ends = control.should_training_stop or state.global_step >= state.max_steps
        if ends or control.should_log or control.should_evaluate or control.should_save:
            self._check_losses(state.global_step, kwargs["optimizer"])
        if ends or control.should_evaluate or control.should_save:
            check_values(self.network(), state.global_step, _rate(kwargs["optimizer"]))

    on_epoch_end = on_step_end

    def _check_losses(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        if self._bad is None:
            return
        ranks.average(self._bad)
        check_loss(torch.where(self._bad > 0, torch.nan, 0.0), step, _rate(optimizer))


def _rate(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])
