"""Evaluation in half precision that changes nothing: `bf16_full_eval` and `fp16_full_eval` cast the model for good."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def types_kept(model: nn.Module) -> Iterator[None]:
    """After the block every parameter, gradient and buffer that was cast in it is again what it was, bit for bit.

    A cast makes a new tensor, so holding the old one costs no copy where nothing is cast. What moved to another device
    stays there.
    """
    parameters = [(parameter, parameter.data, parameter.grad) for parameter in model.parameters()]
    gradients = [None if gradient is None else gradient.data for _, _, gradient in parameters]
    buffers = [(module, name, buffer) for module in model.modules() for name, buffer in module._buffers.items()]
    try:
        yield
    finally:
        with torch.no_grad():
            for (parameter, data, gradient), old in zip(parameters, gradients, strict=True):
                if parameter.dtype != data.dtype:
                    parameter.grad = None
                    parameter.data = _there(data, parameter)
                    if gradient is not None and old is not None:
                        gradient.data = _there(old, parameter)
                        parameter.grad = gradient
            for module, name, buffer in buffers:
                now = module._buffers[name]
                if buffer is not None and now is not None and now.dtype != buffer.dtype:
                    module._buffers[name] = _there(buffer, now)


def _there(tensor: Tensor, now: Tensor) -> Tensor:
    return tensor.to(now.device)
