"""Arguments that share a model out over processes in ways that active entries cannot follow: refused at once."""

import os
from typing import Any

WAYS_OUT = "use DDP, or `fsdp`, which shares out the frozen base by FSDP2"
_DEEPSPEED = ("DeepSpeed takes optimizer states (ZeRO-1 and 2) or weights (ZeRO-3) into memory of its own, where the "
              "values of active entries would not reach their weights: use DDP in place of ZeRO-1 and 2, and `fsdp` "
              "(FSDP2) in place of ZeRO-3")  # fmt: skip


def is_on(variable: str) -> bool:
    """Whether a launcher has switched something on by a variable of the environment."""
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on", "y", "t")


def refuse(arguments: Any) -> None:
    """Raise a ValueError where TrainingArguments, or the launcher, ask for DeepSpeed.

    Args:
        arguments: those of transformers, made or about to be made.
    """
    if getattr(arguments, "deepspeed", None) or is_on("ACCELERATE_USE_DEEPSPEED"):
        raise ValueError(_DEEPSPEED)
