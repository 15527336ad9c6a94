"""Arguments that share parameters out over processes, which active entries cannot follow: refused before all else."""

import os
from typing import Any

WHOLE = "leave it out and train by DDP, or in one process"
_WISHES = {
    "fsdp": ("ACCELERATE_USE_FSDP", "FSDP"),
    "deepspeed": ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
}
"""Argument -> the variable by which `accelerate launch` asks for the same, and its name."""


def refuse(arguments: Any) -> None:
    """Raise a ValueError where TrainingArguments, or the launcher, ask for it.

    Args:
        arguments: those of transformers, made or about to be made.
    """
    for name, (variable, what) in _WISHES.items():
        if getattr(arguments, name, None):
            raise ValueError(f"`{name}` shards parameters, of which active entries need the whole: {WHOLE}")
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on", "y", "t"):
            raise ValueError(f"accelerate launches this run with {what}, which shards parameters, of which active "
                             "entries need the whole: use a configuration for DDP")  # fmt: skip
