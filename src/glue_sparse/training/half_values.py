"""Values of active entries in bfloat16: optimizers see float32 numbers during a step, and what they give is rounded."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from glue_sparse.core.active import active_tensors
from glue_sparse.core.randomness import seeded
from glue_sparse.core.rounding import stochastically
from glue_sparse.methods.base import SparseMethod


def half_values(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, stochastic: bool = True, seed: int = 0,
    step: Callable[[], int] | None = None,
) -> None:  # fmt: skip
    """Keep the values of a bfloat16 model's active entries in bfloat16 from here on, so that they are its weights.

    In each step of the optimizer values and gradients are float32, and so is its state, also when that is loaded. Then
    values are rounded: stochastically, so that their mean is right and steps far smaller than the distance of two
    numbers still move them, or to the nearest number, which leaves a value where its steps are below half of that.

    Args:
        model: what `attach` changed; of its entries none may move to other positions.
        optimizer: it trains the values; call this once, before its first step.
        stochastic: round stochastically.
        seed: of the rounding, whose random numbers are a function of (seed, step, name).
        step: number of the step under way; by default they are counted from 0, so a run that is resumed has to say it.
    Raises:
        ValueError: no active entries, a tensor that is not bfloat16, or called again; nothing is changed then.
    """
    entries = list(active_tensors(model))
    if not entries:
        raise ValueError("this model has no active entries whose values could be bfloat16: call attach first")
    if _are_half(model):
        raise ValueError("the values of this model are bfloat16 already: call half_values once")
    if wrong := next((name for name, one in entries if one.dtype != torch.bfloat16), None):
        raise ValueError(f"{wrong} is not bfloat16, and values in bfloat16 would change it: load the model in "
                         "bfloat16, or leave `values_dtype` out")  # fmt: skip
    steps = _Steps({name: one.values for name, one in entries}, stochastic, seed, step)
    steps.narrow()
    optimizer.register_step_pre_hook(steps.before)
    optimizer.register_step_post_hook(steps.after)
    # an optimizer casts the state that it loads to the type of its parameter
    optimizer.register_load_state_dict_pre_hook(lambda *_: steps.widen())
    optimizer.register_load_state_dict_post_hook(lambda *_: steps.narrow())


def _are_half(model: nn.Module) -> bool:
    return any(entries.values.dtype == torch.bfloat16 for _, entries in active_tensors(model))


class _Steps:
    """Changes the type of values around each step of an optimizer."""

    def __init__(self, values: dict[str, nn.Parameter], stochastic: bool, seed: int, step: Callable[[], int] | None):
        self.values, self.stochastic, self.seed, self.step = values, stochastic, seed, step
        self._grads: dict[str, Tensor | None] = {}
        self._count = 0

    def widen(self) -> None:
        """To float32, which changes no number."""
        for values in self.values.values():
            values.grad, values.data = None, values.data.float()

    def narrow(self) -> None:
        """To bfloat16, to the nearest number."""
        for values in self.values.values():
            values.grad, values.data = None, values.data.bfloat16()

    def before(self, *_: Any) -> None:
        """Called before a step."""
        self._grads = {name: values.grad for name, values in self.values.items()}
        self.widen()
        for name, grad in self._grads.items():
            self.values[name].grad = None if grad is None else grad.float()

    def after(self, *_: Any) -> None:
        """Called after a step."""
        step = self._count if self.step is None else self.step()
        for name, values in self.values.items():
            found = values.data.bfloat16()
            if self.stochastic and self._grads[name] is not None:
                found = stochastically(values.data, seeded(self.seed, "rounding", step, name))
            values.grad, values.data = None, found
            values.grad = self._grads[name]
        self._grads = {}
        self._count += 1


def check(args: TrainingArguments, method: SparseMethod, model: nn.Module) -> None:
    """Raise a ValueError where `values_dtype` bfloat16 is asked for and cannot be had."""
    if getattr(args, "values_dtype", "float32") == "float32":
        return
    if method.moves:
        raise ValueError("`values_dtype` bfloat16 is for entries that stay the same, and this method moves them: leave "
                         "it out")  # fmt: skip
    if all(parameter.dtype != torch.bfloat16 for parameter in model.parameters()):
        raise ValueError("`values_dtype` bfloat16 is for a model in bfloat16: give `dtype` bfloat16 too, or leave it "
                         "out")  # fmt: skip


def as_told(
    args: TrainingArguments, model: nn.Module, optimizer: Any, step: Callable[[], int]
) -> None:
    """`half_values` where the arguments ask for it, and it has not been called for an earlier training."""
    if getattr(args, "values_dtype", "float32") == "bfloat16" and not _are_half(model):
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's has no hooks of its own
        half_values(model, optimizer, stochastic=getattr(args, "stochastic_rounding", False), seed=args.seed, step=step)
