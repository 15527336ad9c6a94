"""Optimizer, schedule and recomputation are built once for a single number, so that wrong wishes are told at once."""

import math
from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import SchedulerType, Trainer, TrainingArguments, get_scheduler
from transformers.utils.import_utils import is_liger_kernel_available

from glue_sparse.training.support import built_as_asked

BY_SCORE = tuple(one for one in SchedulerType if one.value in ("reduce_lr_on_plateau", "greedy"))
"""Schedules of the learning rate that follow a score."""
_STEPS = 8
"""A schedule is followed for so many steps."""


def check(args: TrainingArguments) -> None:
    """Raise a ValueError where something that training needs cannot be built, or would ignore what it is told.

    Raises:
        ValueError: a package that is not installed, an argument of the optimizer, schedule or recomputation that is
            unknown, or has a value that it does not take.
    """
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise ValueError("`use_liger_kernel` needs the package liger-kernel: install it, or leave it out")
    told = _optimizer_args(args)
    with built_as_asked("the optimizer of `optim`", args.optim):
        optimizer = _optimizer(args)
    kind = getattr(args.optim, "value", args.optim)
    for name in told:
        if _is_ignored(args, name):
            raise ValueError(f"`optim` {kind} takes no {name[:40]!r} in `optim_args`: leave it out")
    if optimizer is not None:
        _follow_schedule(args, optimizer)
    _recompute(args)


def _optimizer_args(args: TrainingArguments) -> dict[str, str]:
    """What `optim_args` says, as `name=value,name=value`."""
    words = (args.optim_args or "").replace(" ", "")
    pairs = [word.partition("=") for word in words.split(",")] if words else []
    for name, _, value in pairs:
        if not name or not value or "=" in value:
            raise ValueError(f"`optim_args` is NAME=VALUE,NAME=VALUE, for example momentum=0.9, not {words[:60]!r}")
        if name == "weight_decay":
            raise ValueError("`optim_args` has no effect on weight decay: give `weight_decay` instead")
        if _is_no_number(value):
            raise ValueError(f"`optim_args` holds {name[:40]}={value}, which is no finite number: give another")
    return {name: value for name, _, value in pairs}


def _is_no_number(text: str) -> bool:
    try:
        return not math.isfinite(float(text))
    except ValueError:
        return False


def _choice(args: TrainingArguments, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """Class, or factory, and arguments of an optimizer, as the Trainer finds them."""
    changed = copy(args)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
    return Trainer.get_optimizer_cls_and_kwargs(changed, torch.nn.Linear(1, 1, bias=False))  # pyright: ignore


def _is_ignored(args: TrainingArguments, name: str) -> bool:
    """Whether an optimizer would be the same whatever this argument says."""
    found = []
    for value in "01":
        try:
            found.append(_choice(args, optim_args=f"{name}={value}"))
        except (AttributeError, KeyError, TypeError, ValueError):  # it was read
            return False
    return found[0] == found[1]


def _optimizer(args: TrainingArguments) -> torch.optim.Optimizer | None:
    """One of a single number; none where it can be built from a whole model alone."""
    kind, options = _choice(args)
    if not isinstance(kind, type) or not issubclass(kind, torch.optim.Optimizer):
        return None
    if not {"params", "model", "optimizer_dict"}.isdisjoint(options):
        return None
    return kind([torch.nn.Parameter(torch.zeros(1, 1))], **options)


def _follow_schedule(args: TrainingArguments, optimizer: torch.optim.Optimizer) -> None:
    options: Any = args.lr_scheduler_kwargs
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f'`lr_scheduler_kwargs` is a JSON object, such as {{"num_cycles": 1}}, not {options!r:.60}')
    name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    with built_as_asked("the schedule of `lr_scheduler_type`", name):
        schedule: Any = get_scheduler(
            args.lr_scheduler_type, optimizer, num_warmup_steps=1, num_training_steps=_STEPS,
            scheduler_specific_kwargs=options,  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        for _ in range(0 if args.lr_scheduler_type in BY_SCORE else _STEPS):
            optimizer.step()
            schedule.step()
            rates = [group["lr"] for group in optimizer.param_groups]
            if not all(math.isfinite(rate) for rate in rates):
                raise ValueError(f"it gives a learning rate of {rates[0]}")


def _recompute(args: TrainingArguments) -> None:
    options: Any = args.gradient_checkpointing_kwargs
    if not options or not args.gradient_checkpointing:
        return
    if not isinstance(options, Mapping):
        raise ValueError(f"`gradient_checkpointing_kwargs` is a JSON object, such as {{\"use_reentrant\": false}}, not "
                         f"{options!r:.60}")  # fmt: skip

    def checkpointed(number: torch.Tensor) -> torch.Tensor:
        return -number

    with built_as_asked("the recomputation of `gradient_checkpointing_kwargs`"):
        checkpoint(checkpointed, torch.zeros(1, requires_grad=True), **{"use_reentrant": False, **options})
