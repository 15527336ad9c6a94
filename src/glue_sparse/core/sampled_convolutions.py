"""Convolutions whose weight gradient is formed at the active entries, from the patches of the input that they meet."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from glue_sparse.core.operators import operator
from glue_sparse.core.parametrization import Entries
from glue_sparse.core.patterns import Pattern, gradient_at, pattern

_PIECE = 1 << 22
"""Numbers of patches that exist at a time, 16 MiB of them."""
_FORWARD = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def is_followed(module: Any) -> bool:
    """Whether a layer of these kinds is computed here: all inputs meet all outputs, and padding is of zeros."""
    return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def convolution_pattern(entries: Entries) -> Pattern | None:
    """The pattern of [outputs, inputs, *kernel], whose columns are always named, on a CPU; see `patterns.pattern`."""
    found = pattern(entries) if entries.places.device.type == "cpu" else None
    if found is None or found.columns is not None:
        return found
    return found._replace(columns=torch.arange(entries.shape[1:].numel(), dtype=torch.int32))


def convolved(module: Any, x: Tensor, values: Tensor, weight: Tensor, dtype: torch.dtype, found: Pattern) -> Tensor:
    """The layer's result for a batch; products are of `dtype`."""
    settings = list(module.stride), list(module.padding), list(module.dilation)
    return _SampledConvolution.apply(x, module.bias, values, weight, dtype, settings, *found)  # type: ignore


def patches(
    x: Tensor, columns: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """What chosen weights of an output meet: [n, inputs, *sizes] to [n, c, *output sizes].

    Args:
        columns: [c] flat positions in [inputs, *kernel].
    """
    both = [side for amount in reversed(padding) for side in (amount, amount)]
    x = F.pad(x, both) if any(padding) else x
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    ends = [(size - span) // s + 1 for size, span, s in zip(x.shape[2:], spans, stride, strict=True)]
    steps = x.stride()[2:]
    shape = (*x.shape[:2], *kernel, *ends)
    places = (*x.stride()[:2], *(a * d for a, d in zip(steps, dilation, strict=True)),
              *(a * s for a, s in zip(steps, stride, strict=True)))  # fmt: skip
    where = torch.unravel_index(columns.long(), (x.shape[1], *kernel))
    return x.as_strided(shape, places)[(slice(None), *where)]


@operator(
    "convolution_gradient(Tensor grad, Tensor x, Tensor? rows, Tensor columns, Tensor? starts, Tensor places, "
    "int[] kernel, int[] stride, int[] padding, int[] dilation) -> Tensor",
    lambda grad, x, rows, columns, starts, places, *settings: grad.new_empty(places.shape, dtype=torch.float32),
)
def _gradient(
    grad: Tensor, x: Tensor, rows: Tensor | None, columns: Tensor, starts: Tensor | None, places: Tensor,
    kernel: list[int], stride: list[int], padding: list[int], dilation: list[int],
) -> Tensor:  # fmt: skip
    """[k] float32 from [n, outputs, *sizes] and [n, inputs, *sizes], some examples at a time."""
    found = grad.new_zeros(places.shape, dtype=torch.float32)
    size = max(1, _PIECE // max(1, len(columns) * grad.shape[2:].numel()))
    for some_grad, some_x in zip(grad.split(size), x.split(size), strict=True):
        met = patches(some_x, columns, kernel, stride, padding, dilation)
        left = some_grad if rows is None else some_grad.index_select(1, rows)
        left, right = (one.movedim(1, -1).flatten(0, -2) for one in (left, met))
        found += gradient_at(left, right, starts, places)
    return found


class _SampledConvolution(torch.autograd.Function):
    """A convolution whose weight gradient is formed at a pattern only."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, values: Tensor, weight: Tensor, dtype: torch.dtype,
        settings: tuple[list[int], list[int], list[int]], rows: Tensor | None, columns: Tensor, starts: Tensor | None,
        places: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.dtype, ctx.settings, ctx.bias = x.dtype, settings, None if bias is None else list(bias.shape)
        x = x.to(dtype)
        ctx.save_for_backward(x, weight, rows, columns, starts, places)
        stride, padding, dilation = settings
        return _FORWARD[len(stride)](x, weight.to(dtype), None if bias is None else bias.to(dtype), stride, padding,
                                     dilation)  # fmt: skip

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, rows, columns, starts, places = ctx.saved_tensors
        grad, grad_values, (stride, padding, dilation) = grad_outputs[0], None, ctx.settings
        if ctx.needs_input_grad[2]:
            kernel = list(weight.shape[2:])
            grad_values = _gradient(grad, x, rows, columns, starts, places, kernel, stride, padding, dilation)
        grad_x, _, grad_bias = torch.ops.aten.convolution_backward(
            grad, x, weight.to(grad.dtype), ctx.bias, stride, padding, dilation, False, [0] * len(stride), 1,
            [ctx.needs_input_grad[0], False, ctx.needs_input_grad[1]],
        )  # fmt: skip
        return None if grad_x is None else grad_x.to(ctx.dtype), grad_bias, grad_values, *(None,) * 7
