"""Output and training: the arguments of transformers with our own. Loads torch."""

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from transformers import IntervalStrategy, SchedulerType, TrainingArguments
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.training_args import OptimizerNames

from glue_sparse.arguments import sharding
from glue_sparse.arguments.flags import check_bounds
from glue_sparse.arguments.groups import OutputArguments
from glue_sparse.arguments.trainer_flags import trainer_flags
from glue_sparse.writing.fields import json_object
from glue_sparse.writing.words import check_one_of

_RANKS = ("RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
"""Variables of which a launcher of several processes sets one."""

_WORDS: dict[str, type[Enum]] = {
    "optim": OptimizerNames, "lr_scheduler_type": SchedulerType, "eval_strategy": IntervalStrategy,
    "logging_strategy": IntervalStrategy, "save_strategy": SaveStrategy, "hub_strategy": HubStrategy,
}  # fmt: skip
"""Flags that take one word, and the words."""


def _otherwise(kind: type[Enum]) -> str | None:
    return f"there are {len(kind)}, listed as {kind.__name__} in transformers" if len(kind) > 12 else None


def _check_mapping(name: str, text: str) -> None:
    """Refuse what is neither a JSON object nor a file that has one: transformers would wait for the end of a device."""
    if text.startswith("{"):
        json_object(text, f"`{name}`")
    elif (path := Path(text)).exists() and not path.is_file():
        raise ValueError(f"`{name}` is a JSON object or a file that holds one, and {text[:60]!r} is no file")


@dataclass
class RunArguments(OutputArguments, TrainingArguments):
    """Output and training: all of transformers.TrainingArguments, of which --help shows the usual ones.

    Attributes:
        tags: what services that `report_to` names are told of a run beside its arguments.
    """

    tags: dict[str, str] = field(default_factory=dict, init=False)

    def to_dict(self) -> dict[str, Any]:
        """What is shown of the arguments where a run is reported to."""
        return {**super().to_dict(), **({"tags": self.tags} if self.tags else {})}

    def __post_init__(self):
        if str(self.fsdp).lower() in ("true", "false"):  # as a command line, or YAML, has them
            self.fsdp = str(self.fsdp).lower() == "true" or None  # pyright: ignore[reportAttributeAccessIssue]
        sharding.refuse(self)  # before the packages that it needs are looked for
        check_bounds(self, trainer_flags(""))
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.ddp_backend is None and not self.use_cpu and torch.cuda.is_available():
            # nccl needs a GPU per process; several processes on one GPU can talk over gloo
            shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
            self.ddp_backend = "gloo" if shared else None
        if self.overwrite and self.resume_from_checkpoint == "auto":
            raise ValueError("--overwrite starts anew and --resume_from_checkpoint auto goes on: give one of them")
        for name, kind in _WORDS.items():
            value = getattr(self, name)
            check_one_of(f"`{name}`", getattr(value, "value", value), [one.value for one in kind], _otherwise(kind))
        for name in self._VALID_DICT_FIELDS:
            if isinstance(text := getattr(self, name), str):
                _check_mapping(name, text)
        self._check_device()
        super().__post_init__()
        self._check_objects()

    def _check_device(self) -> None:
        """Refuse what needs another device, or other processes, than there are."""
        if self.fp16 and self.use_cpu:
            raise ValueError("`fp16` needs a GPU, and this run is on the CPU: use `bf16`, or leave it out")
        if self.ddp_backend is not None and not any(name in os.environ for name in _RANKS):
            raise ValueError("`ddp_backend` is for several processes, and this run is one: start it by torchrun, or "
                             "leave it out")  # fmt: skip

    def _check_objects(self) -> None:
        """Refuse a text where transformers takes an object, which it would only miss while training."""
        if isinstance(self.parallelism_config, str):
            raise ValueError("`parallelism_config` is an object that a command line cannot give: leave it out")
        for name in ("lr_scheduler_kwargs", "gradient_checkpointing_kwargs"):
            if isinstance(value := getattr(self, name), str):
                raise ValueError(f"`{name}` is a JSON object, as {{\"name\": 1}}, not {value[:60]!r}")
