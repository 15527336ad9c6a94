"""Output and training: the arguments of transformers with our own. Loads torch."""

import os
from dataclasses import dataclass

import torch
from transformers import TrainingArguments

from glue_sparse.arguments import sharding
from glue_sparse.arguments.flags import check_bounds
from glue_sparse.arguments.groups import OutputArguments
from glue_sparse.arguments.trainer_flags import trainer_flags


@dataclass
class RunArguments(OutputArguments, TrainingArguments):
    """Output and training: all of transformers.TrainingArguments, of which --help shows the usual ones."""

    def __post_init__(self):
        sharding.refuse(self)  # before the packages that it needs are looked for
        check_bounds(self, trainer_flags(""))
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.ddp_backend is None and not self.use_cpu and torch.cuda.is_available():
            # nccl needs a GPU per process; several processes on one GPU can talk over gloo
            shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
            self.ddp_backend = "gloo" if shared else None
        if self.overwrite and self.resume_from_checkpoint == "auto":
            raise ValueError("--overwrite starts anew and --resume_from_checkpoint auto goes on: give one of them")
        super().__post_init__()
