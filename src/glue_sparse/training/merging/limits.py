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


def check(args: RunArguments, plan: MergeArguments, num_workers: int, num_examples: int, density: float) -> None:
    """Raise a ValueError for what workers that merge do not honour, before the model is copied for them.

    Args:
        density: of one worker, 0 where there is none to tell.
    """
    if plan.worker_data == "sharded" and num_workers > num_examples:
        raise ValueError(f"{num_examples} training examples are too few for {num_workers} workers: lower "
                         "`num_workers`")  # fmt: skip
    if plan.worker_masks == "disjoint" and num_workers * density > 1:
        raise ValueError(f"{num_workers} workers with entries of their own, each with a `density` of {density:g}, need "
                         "more than all: lower one of them, or use `worker_masks` shared")  # fmt: skip
    if args.values_dtype != "float32":
        raise ValueError("`values_dtype` does not work with `merge_every`: leave one of them out")
    for flag in REFUSED:
        if getattr(args, flag):
            raise ValueError(f"`{flag}` does not work with `merge_every`")
    if num_workers >= 4 and plan.merge_rule == "sum":
        logger.warning(
            "%d workers whose updates are summed: in the FISH authors' logs runs with 4 and 8 workers diverged; "
            "`merge_rule` mean is the safe choice", num_workers,
        )  # fmt: skip
