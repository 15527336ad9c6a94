"""Batches of examples: their size, one example of them, and where and how a model sees them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Batch = dict[str, Any]


def batch_size(batch: Batch) -> int:
    """Examples in a batch: the first dimension of its first tensor."""
    return next(len(value) for value in batch.values() if isinstance(value, Tensor))


def example(batch: Batch, i: int) -> Batch:
    """Example `i` as a batch of one."""
    size = batch_size(batch)
    return {k: v[i : i + 1] if isinstance(v, Tensor) and v.dim() and len(v) == size else v for k, v in batch.items()}


def on_device(batch: Batch, model: nn.Module) -> Batch:
    """The batch with its tensors where the model is."""
    device = next(model.parameters()).device
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode inside the block; afterwards every module is in the mode it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
