"""A warning where bfloat16 is slower than float32, as it is many times on a processor without units for it."""

import logging
import time
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import TrainingArguments

logger = logging.getLogger(__name__)

WORTH_SAYING = 1.2
_REPEATS = 3


def announce(args: TrainingArguments) -> None:
    """Say once, on the first rank, how many times slower the bfloat16 of `args` is than float32; nothing on a GPU."""
    flag = "bf16" if args.bf16 else "bf16_full_eval"
    if not getattr(args, flag) or args.device.type != "cpu" or args.process_index != 0:
        return
    if (factor := slowdown()) > WORTH_SAYING:
        logger.warning("bfloat16 is %.1f times slower than float32 on this processor: leave `%s` out", factor, flag)


@lru_cache(maxsize=1)
def slowdown() -> float:
    """Seconds of a layer of 384 inputs and 768 outputs in bfloat16, in those of float32: the best of a few each."""
    inputs, weight = torch.ones(64, 384), torch.ones(768, 384)
    return _seconds(inputs.bfloat16(), weight.bfloat16()) / _seconds(inputs, weight)


def _seconds(inputs: Tensor, weight: Tensor) -> float:
    taken = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        linear(inputs, weight)
        taken.append(time.perf_counter() - started)
    return min(taken)
