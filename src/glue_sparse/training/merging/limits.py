"""What workers that merge do not honour, and what they are warned of."""

import logging

from glue_sparse.arguments.groups import MergeArguments
from glue_sparse.arguments.training import RunArguments

logger = logging.getLogger(__name__)

REFUSED = (
    "fp16", "fp16_full_eval", "bf16_full_eval", "load_best_model_at_end", "label_smoothing_factor",
    "gradient_checkpointing", "torch_compile",
)  # fmt: skip
"""Flags of the Trainer that this kind of training does not honour."""


def check(args: RunArguments, plan: MergeArguments, num_workers: int) -> None:
    for flag in REFUSED:
        if getattr(args, flag):
            raise ValueError(f"`{flag}` does not work with `merge_every`")
    if num_workers >= 4 and plan.merge_rule == "sum":
        logger.warning(
            "%d workers whose updates are summed: in the FISH authors' logs runs with 4 and 8 workers diverged; "
            "`merge_rule` mean is the safe choice", num_workers,
        )  # fmt: skip
