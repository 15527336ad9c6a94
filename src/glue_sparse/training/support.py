"""Which arguments and models SparseTrainer can train; all others are refused at once, with the way out."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from glue_sparse.arguments import sharding
from glue_sparse.arguments.flags import check_bounds
from glue_sparse.arguments.trainer_flags import trainer_flags
from glue_sparse.core import support
from glue_sparse.core.masks import Masks
from glue_sparse.core.parametrization import frozen_tensors, is_attached
from glue_sparse.methods.base import SparseMethod
from glue_sparse.training import half_values
from glue_sparse.writing.ending import is_ours

logger = logging.getLogger(__name__)


@contextmanager
def built_as_asked(what: str, choice: Any = "") -> Iterator[None]:
    """Turn what other packages say of arguments that nothing can be built from into one ValueError.

    Args:
        what: is built in the block from the user's arguments, with the name of the argument.
        choice: its value.
    """
    what = f"{what} {getattr(choice, 'value', choice)}".strip()
    try:
        yield
    except (ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if is_ours(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{what} cannot be had as it is asked for: {reason or type(error).__name__}") from error


def check(model: Any, args: Any, method: Any, head: Any = None) -> None:
    """Raise a ValueError for what active entries cannot train with, before anything is moved.

    Args:
        model, args, method, head: as the user handed them in.
    """
    if not isinstance(args, TrainingArguments):
        raise ValueError(f"SparseTrainer takes TrainingArguments as `args`, and not {type(args).__name__}")
    if not isinstance(method, SparseMethod):
        found = method.__name__ if isinstance(method, type) else type(method).__name__
        raise ValueError("SparseTrainer takes a method that has been made, an object and no class or function, as "
                         f"`method`, and not {found}")  # fmt: skip
    half_values.check(args, method, model)
    sharding.refuse(args)
    if args.fp16 and method.without_fp16:
        raise ValueError("`fp16` scales gradients, by which this method moves entries: use `bf16` instead")
    if method.moves and method.inactive == "frozen" and args.load_best_model_at_end:
        raise ValueError("`load_best_model_at_end` cannot go back to a mask that was replaced: choose one of them")
    check_bounds(args, trainer_flags(""))
    if not isinstance(model, nn.Module):
        raise ValueError(f"SparseTrainer takes a model, a torch.nn.Module, and not {type(model).__name__}")
    support.check_model(model)
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if len(devices) > 1:
        raise ValueError(f"the model lies on several devices ({', '.join(devices)}): load it on one, without a "
                         "`device_map` that spreads it")  # fmt: skip
    known = dict(model.named_parameters())
    if unknown := [name for name in head or () if name not in known]:
        raise ValueError(f"`head` names {unknown[0]}, which is no parameter of {type(model).__name__}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("every parameter of this model is frozen, so that nothing would train: call "
                         "requires_grad_(True) on those that may")  # fmt: skip


def attach(method: SparseMethod, model: nn.Module, masks: Masks) -> None:
    """Let the method attach its masks; ValueError where nothing would train, as with a head alone and none there."""
    method.attach(model, masks)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("nothing of this model would train: the method chose no weight of it, and the task adds no "
                         "head; choose another method")  # fmt: skip


def recompute_as_told(model: Any, args: TrainingArguments) -> None:
    """Let a model know before a score looks at it, and not only before it trains, that its layers are recomputed."""
    if args.activation_checkpointing and hasattr(model, "activation_checkpointing_enable"):
        told: Any = args.activation_checkpointing_kwargs
        options = dict(told or {})
        every, offload = options.pop("every_n_layers", 1), options.pop("offload", False)
        model.activation_checkpointing_enable(options or None, every_n_layers=every, offload=offload)


def check_plain(model: nn.Module) -> None:
    """Raise a ValueError where a method is to choose entries of a model that has some, which it would not replace."""
    if is_attached(model):
        raise ValueError("this model has active entries already, which another choice would not replace: call "
                         "detach(model) first")  # fmt: skip


def check_held(model: nn.Module, was_attached: bool) -> None:
    """Raise a ValueError where the active entries of a trainer are gone, so that none of them would train."""
    if was_attached and not is_attached(model):
        raise ValueError("the active entries of this trainer were taken away by detach(model): make a new "
                         "SparseTrainer to train the model again")  # fmt: skip


def check_accelerator(accelerator: Any) -> None:
    """Raise a ValueError where the launcher or a plugin shares out parameters or sequences otherwise than by FSDP2."""
    state, plan = accelerator.state, getattr(accelerator, "parallelism_config", None)
    plugins = [name for name in ("fsdp_plugin", "deepspeed_plugin", "megatron_lm_plugin", "torch_tp_plugin")
               if getattr(state, name, None) is not None]  # fmt: skip
    sizes = [name for name in ("tp_size", "dp_shard_size", "cp_size", "sp_size", "ep_size")
             if (getattr(plan, name, None) or 1) > 1]  # fmt: skip
    for name in plugins + sizes:
        raise ValueError(f"accelerate is told to share parameters or sequences out over processes (`{name}`) in a way "
                         f"that active entries cannot follow: {sharding.WAYS_OUT}")  # fmt: skip


def announce_frozen(model: nn.Module) -> None:
    """Say how many entries do not train because they are frozen."""
    frozen = frozen_tensors(model).values()
    if count := sum(parameter.numel() for parameter in frozen):
        logger.warning(
            "%s entries in %d tensors are frozen (requires_grad=False): they stay as they are, and a density counts "
            "them among all entries", f"{count:,}", len(frozen),
        )  # fmt: skip
