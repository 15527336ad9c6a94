"""Which arguments and models SparseTrainer can train; all others are refused at once, with the way out."""

import logging
from typing import Any

from torch import nn
from transformers import TrainingArguments

from glue_sparse.arguments import sharding
from glue_sparse.core import support
from glue_sparse.core.parametrization import frozen_tensors

logger = logging.getLogger(__name__)

def check(model: Any, args: TrainingArguments) -> None:
    """Raise a ValueError for arguments or a model that active entries cannot train with, before anything is moved.

    Args:
        model: as the user handed it in.
    """
    sharding.refuse(args)
    if not isinstance(model, nn.Module):
        raise ValueError(f"SparseTrainer takes a model, a torch.nn.Module, and not {type(model).__name__}")
    support.check_model(model)
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if len(devices) > 1:
        raise ValueError(f"the model lies on several devices ({', '.join(devices)}): load it on one, without a "
                         "`device_map` that spreads it")  # fmt: skip
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("every parameter of this model is frozen, so that nothing would train: call "
                         "requires_grad_(True) on those that may")  # fmt: skip


def check_accelerator(accelerator: Any) -> None:
    """Raise a ValueError where the launcher or a plugin has asked for parameters that are shared out over processes."""
    state, plan = accelerator.state, getattr(accelerator, "parallelism_config", None)
    plugins = [name for name in ("fsdp_plugin", "deepspeed_plugin", "megatron_lm_plugin", "torch_tp_plugin")
               if getattr(state, name, None) is not None]  # fmt: skip
    sizes = [name for name in ("tp_size", "dp_shard_size", "cp_size", "sp_size", "ep_size")
             if (getattr(plan, name, None) or 1) > 1]  # fmt: skip
    for name in plugins + sizes:
        raise ValueError(f"accelerate is told to share parameters or sequences out over processes (`{name}`), and "
                         f"active entries need them whole: {sharding.WHOLE}")  # fmt: skip


def announce_frozen(model: nn.Module) -> None:
    """Say how many entries do not train because they are frozen."""
    frozen = frozen_tensors(model).values()
    if count := sum(parameter.numel() for parameter in frozen):
        logger.warning(
            "%s entries in %d tensors are frozen (requires_grad=False): they stay as they are, and a density counts "
            "them among all entries", f"{count:,}", len(frozen),
        )  # fmt: skip
