"""Faster insides for layers with few active entries: products with active tiles alone, gradients at active entries.

`install` swaps the forward of one parametrized layer. The result equals the plain path up to rounding.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from glue_sparse.core import block_sparse
from glue_sparse.core.parametrization import Entries

_MAX_LINEAR_DENSITY = 0.05  # above it the dense product, which uses the processor better, is as fast


class _SampledLinear(torch.autograd.Function):
    """y = x W^T + b, whose weight gradient is formed at `pattern` only (a sampled dense-dense product)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, values: Tensor, weight: Tensor, pattern: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.pattern = pattern
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        grad = grad_outputs[0]
        rows, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_values = None
        if ctx.needs_input_grad[2]:  # first, because its scratch space is freed before grad_x is made
            grad_values = torch.sparse.sampled_addmm(ctx.pattern, rows.t(), inputs, beta=0.0).values()
        grad_bias = rows.sum(0) if ctx.needs_input_grad[1] else None
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        return grad_x, grad_bias, grad_values, None, None


class _SampledEmbedding(torch.autograd.Function):
    """Rows of a table, whose gradient is summed for the rows in use and then read at the active entries."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, values: Tensor, weight: Tensor, indices: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(ids, indices)
        ctx.padding, ctx.dtype = padding, values.dtype
        return F.embedding(ids, weight, padding)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        ids, indices = ctx.saved_tensors
        width = grad_outputs[0].shape[-1]
        used, slot = ids.flatten().unique(return_inverse=True)
        sums = torch.zeros(len(used), width, dtype=ctx.dtype, device=ids.device)
        sums.index_add_(0, slot, grad_outputs[0].reshape(-1, width).to(ctx.dtype))
        rows = indices // width
        place = torch.searchsorted(used, rows).clamp_(max=len(used) - 1)
        hit = used[place] == rows
        if ctx.padding is not None:
            hit &= rows != ctx.padding
        return None, torch.where(hit, sums[place, indices % width], 0), None, None, None


def pattern(entries: Entries) -> Tensor:
    """The active entries of a matrix as a CSR tensor of zeros; ask for it by `entries.derived(pattern)`."""
    indices, shape = entries.indices, entries.shape
    counts = torch.bincount(indices // shape[1], minlength=shape[0])
    starts = F.pad(counts.cumsum(0), (1, 0)).int()
    zeros = torch.zeros(len(indices), device=indices.device)
    with warnings.catch_warnings():  # torch announces once a process that its CSR tensors are in beta
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(starts, (indices % shape[1]).int(), zeros, shape, check_invariants=False)


def _weight_entries(module: Any) -> tuple[Entries, Tensor]:
    """The active entries of `module.weight` and the full weight with their values written into it."""
    stack = module.parametrizations["weight"]
    stack[0].write(stack.original)
    return stack[0], stack.original


def _runs_by_tiles(entries: Entries, weight: Tensor, x: Tensor) -> bool:
    """Whether to compute by tiles; not where the whole weight's gradient is wanted, or where inactive entries count."""
    if entries.block_size == 1 or entries.inactive != "zero" or entries.is_watched or not len(entries.indices):
        return False
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    density, tokens = len(entries.indices) / weight.numel(), x.numel() // weight.shape[1]
    return block_sparse.runs(x.device, dtype, weight.shape, entries.block_size, density, tokens)


def _linear_forward(self: Any, x: Tensor) -> Tensor:
    stack = self.parametrizations["weight"]
    if _runs_by_tiles(stack[0], stack.original, x):  # the full weight is neither written to nor read
        plan = stack[0].derived(block_sparse.plan)
        return block_sparse.linear_of_entries(x, stack[0].values, stack.original.dtype, plan, self.bias)
    num_active = len(stack[0].indices)
    sampled = x.device.type == "cpu" and x.dtype == stack.original.dtype == torch.float32
    sampled = sampled and 0 < num_active <= _MAX_LINEAR_DENSITY * stack.original.numel() and not stack[0].is_watched
    if not sampled or torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
        return F.linear(x, self.weight, self.bias)
    entries, weight = _weight_entries(self)
    return _SampledLinear.apply(x, self.bias, entries.values, weight, entries.derived(pattern))  # type: ignore


def _embedding_forward(self: Any, ids: Tensor) -> Tensor:
    entries, weight = _weight_entries(self)
    if entries.is_watched:
        return F.embedding(ids, self.weight, self.padding_idx)
    if not len(entries.indices):
        return F.embedding(ids, weight, self.padding_idx)
    return _SampledEmbedding.apply(ids, entries.values, weight, entries.indices, self.padding_idx)  # type: ignore


def install(module: nn.Module, attribute: str) -> None:
    """Give a layer whose `attribute` was just parametrized the faster forward, where there is one for its type.

    The forward is set on the class that parametrize made for this one module, so it goes when the parametrization
    goes, and copies of the module keep it.
    """
    if attribute != "weight":
        return
    kind = parametrize.type_before_parametrizations(module)
    if kind is nn.Linear:
        type(module).forward = _linear_forward
    elif kind is nn.Embedding and module.max_norm is None and not module.scale_grad_by_freq and not module.sparse:
        type(module).forward = _embedding_forward
