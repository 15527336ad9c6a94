"""A method's own groups of parameters: in the optimizer, under the schedule of rates, and in clipping."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from glue_sparse.core.active import active_tensors


def add(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> None:
    """Move the parameters of `SparseMethod.param_groups` into groups of their own, with the options they state."""
    for group in groups:
        own = set(map(id, group["params"]))
        for other in optimizer.param_groups:
            other["params"] = [p for p in other["params"] if id(p) not in own]
        foreign = [key for key, value in optimizer.defaults.items() if not isinstance(value, int | float)]
        optimizer.add_param_group({key: value for key, value in group.items() if key not in foreign})


@contextmanager
def empty_ones_count(model: nn.Module, moves: bool) -> Iterator[None]:
    """Within the block, where entries move, those of a tensor that has none yet belong into an optimizer too."""
    empty = [entries.values for _, entries in active_tensors(model) if moves and not entries.num_active]
    for values in empty:
        values.requires_grad_(True)
    yield
    for values in empty:
        values.requires_grad_(False)


def give_rate(optimizer: torch.optim.Optimizer, params: Iterable[nn.Parameter], rate: float) -> None:
    """Move parameters into groups with a learning rate of their own; all else about them, decay too, stays."""
    own = set(map(id, params))
    for group in list(optimizer.param_groups):
        moved = [p for p in group["params"] if id(p) in own]
        if moved:
            group["params"] = [p for p in group["params"] if id(p) not in own]
            optimizer.add_param_group({**group, "params": moved, "lr": rate})


def keep_constant(scheduler: LRScheduler, kind: str) -> None:
    """Keep the rate of groups with `schedule: constant`.

    Args:
        kind: the scheduler's name.
    Raises:
        ValueError: there are some, and the schedule does not multiply rates.
    """
    for index, group in enumerate(scheduler.optimizer.param_groups):
        if group.get("schedule") == "constant":
            if not isinstance(scheduler, LambdaLR):
                raise ValueError(f"`lr_scheduler_type` {kind} cannot leave a rate constant")
            scheduler.lr_lambdas[index] = lambda step: 1.0
            group["lr"] = group["initial_lr"]


def clip(model: nn.Module, groups: list[dict[str, Any]], accelerator: Accelerator, max_norm: float) -> Any:
    """Clip the gradients of groups with `clipped: apart` by a norm of their own, all others by theirs together."""
    apart = [group["params"] for group in groups if group.get("clipped") == "apart"]
    own = {id(p) for group in apart for p in group}
    rest = [p for p in model.parameters() if id(p) not in own]
    norm = accelerator.clip_grad_norm_(rest, max_norm)  # first: it undoes the scale of fp16
    for group in apart:
        nn.utils.clip_grad_norm_(group, max_norm)
    return norm
