"""Faster insides for layers with few active entries: products with active tiles alone, gradients at active entries.

`install` swaps the forward of one parametrized layer. The result equals the plain path up to rounding.
"""

import warnings
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils import parametrize

from glue_sparse.core import block_sparse
from glue_sparse.core.operators import is_transformed, note, operator, owned
from glue_sparse.core.parametrization import Entries

_MAX_LINEAR_DENSITY = 0.05  # above it the dense product, which uses the processor better, is as fast


@operator(
    "linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    lambda x, weight, bias: x.new_empty((*x.shape[:-1], weight.shape[0])),
)
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`, whose result is no view."""
    return owned(F.linear(x, weight, bias))


@operator(
    "sampled_product(Tensor grad, Tensor x, Tensor starts, Tensor columns) -> Tensor",
    lambda grad, x, starts, columns: grad.new_empty(columns.shape),
)
def _sampled_product(grad: Tensor, x: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """grad^T x at the entries of a pattern: [..., out] and [..., in] to [k]."""
    rows, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
    announced()
    size = (rows.shape[1], inputs.shape[1])
    zeros = rows.new_zeros(columns.shape)
    places = torch.sparse_csr_tensor(starts, columns, zeros, size, check_invariants=False)
    return torch.sparse.sampled_addmm(places, rows.t(), inputs, beta=0.0).values()


@operator(
    "embedding(Tensor ids, Tensor weight, int? padding) -> Tensor",
    lambda ids, weight, padding: weight.new_empty((*ids.shape, weight.shape[1])),
)
def _embedding(ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:
    """`F.embedding`, whose result is no view."""
    return owned(F.embedding(ids, weight, padding))


@operator(
    "embedding_gradient(Tensor grad, Tensor ids, Tensor indices, int rows, int? padding, ScalarType dtype) -> Tensor",
    lambda grad, ids, indices, rows, padding, dtype: grad.new_empty(indices.shape, dtype=dtype),
)
def _embedding_gradient(
    grad: Tensor, ids: Tensor, indices: Tensor, num_rows: int, padding: int | None, dtype: torch.dtype
) -> Tensor:
    """[k] gradient at flat `indices` of a table from [..., width] of the rows `ids`, summed as `dtype`.

    Sums are formed for the rows in use. They are numbered by sorting, whose result has a size that is known before, so
    that an accelerator need not be waited for.
    """
    width, flat = grad.shape[-1], ids.flatten()
    if not len(flat):
        return grad.new_zeros(indices.shape, dtype=dtype)
    ordered, order = flat.sort()
    number = F.pad((ordered[1:] != ordered[:-1]).cumsum(0), (1, 0))
    slot = torch.empty_like(number).scatter_(0, order, number)
    most = min(len(flat), num_rows)
    used = ordered.new_full((most,), num_rows).scatter_(0, number, ordered)
    sums = torch.zeros(most, width, dtype=dtype, device=grad.device)
    sums.index_add_(0, slot, grad.reshape(-1, width).to(dtype))
    rows = indices // width
    place = torch.searchsorted(used, rows.to(used.dtype)).clamp_(max=most - 1)
    hit = used[place] == rows
    if padding is not None:
        hit &= rows != padding
    return torch.where(hit, sums[place, indices % width], 0)


@cache
def announced() -> None:
    """Let torch say here, unheard, what it says once a process: that its CSR tensors are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.zeros(1, 1).to_sparse_csr()


class Gather(torch.autograd.Function):
    """Hands a weight on in the forward pass; the gradient of `values` is the dense one read at `indices`.

    The one with the token, if there is one, is told of the dense one.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, weight: Tensor, token: Tensor | None) -> Tensor:
        ctx.save_for_backward(indices, token)
        ctx.dtype = values.dtype
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (indices, token), grad = ctx.saved_tensors, grad_outputs[0]
        dense = grad.to_dense() if grad.is_sparse else grad
        if token is not None:
            note(token, dense)
        return dense.reshape(-1)[indices.long()].to(ctx.dtype), None, None, None


class _SampledLinear(torch.autograd.Function):
    """y = x W^T + b, whose weight gradient is formed at a pattern only (a sampled dense-dense product)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, values: Tensor, weight: Tensor, starts: Tensor, columns: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight, starts, columns)
        return _linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, starts, columns = ctx.saved_tensors
        grad, grad_values = grad_outputs[0], None
        if ctx.needs_input_grad[2]:  # first, because its scratch space is freed before grad_x is made
            grad_values = _sampled_product(grad, x, starts, columns)
        grad_bias = grad.reshape(-1, grad.shape[-1]).sum(0) if ctx.needs_input_grad[1] else None
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        return grad_x, grad_bias, grad_values, None, None, None


class _SampledEmbedding(torch.autograd.Function):
    """Rows of a table, whose gradient is summed for the rows in use and then read at the active entries."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, values: Tensor, weight: Tensor, indices: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(ids, indices)
        ctx.padding, ctx.num_rows, ctx.dtype = padding, len(weight), values.dtype
        return _embedding(ids, weight, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        ids, indices = ctx.saved_tensors
        dtype = torch.promote_types(ctx.dtype, torch.float32)  # sums of many rows are not formed in half precision
        grad = _embedding_gradient(grad_outputs[0], ids, indices.long(), ctx.num_rows, ctx.padding, dtype)
        return None, grad.to(ctx.dtype), None, None, None


class Pattern(NamedTuple):
    """The active entries of a matrix row by row, as CSR tensors have them.

    Attributes:
        starts: [rows + 1] int32, where each row begins in `columns`.
        columns: [k] int32.
    """

    starts: Tensor
    columns: Tensor


def pattern(entries: Entries) -> Pattern | None:
    """The pattern of a matrix that is sparse enough for sampled products; ask for it by `entries.derived(pattern)`."""
    if entries.places.device.type != "cpu" or entries.dtype != torch.float32:  # no other type has such a product
        return None
    indices, (rows, columns) = entries.indices, entries.shape
    if not 0 < len(indices) <= _MAX_LINEAR_DENSITY * rows * columns:
        return None
    borders = torch.arange(0, (rows + 1) * columns, columns)
    return Pattern(torch.searchsorted(indices, borders).int(), (indices % columns).int())


def _weight_entries(module: Any) -> tuple[Entries, Tensor]:
    """The active entries of `module.weight` and the full weight, which holds their values."""
    stack = module.parametrizations["weight"]
    stack[0].catch_up(stack.original)
    return stack[0], stack.original


def _runs_by_tiles(entries: Entries, weight: Tensor, x: Tensor) -> bool:
    """Whether to compute by tiles; not where the whole weight's gradient is wanted, or where inactive entries count."""
    if entries.block_size == 1 or entries.inactive != "zero" or entries.is_watched or not len(entries.places):
        return False
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    density, tokens = len(entries.places) / weight.numel(), x.numel() // weight.shape[1]
    return block_sparse.runs(x.device, dtype, weight.shape, entries.block_size, density, tokens)


def _linear_forward(self: Any, x: Tensor) -> Tensor:
    if is_transformed():
        return F.linear(x, self.weight, self.bias)
    stack = self.parametrizations["weight"]
    if _runs_by_tiles(stack[0], stack.original, x):  # the full weight is neither written to nor read
        plan = stack[0].derived(block_sparse.plan)
        return block_sparse.linear_of_entries(x, stack[0].values, stack.original.dtype, plan, self.bias)
    found = stack[0].derived(pattern)
    sampled = found is not None and x.dtype == stack.original.dtype == torch.float32 and not stack[0].is_watched
    if not sampled or torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
        return F.linear(x, self.weight, self.bias)
    entries, weight = _weight_entries(self)
    return _SampledLinear.apply(x, self.bias, entries.values, weight, found.starts, found.columns)  # type: ignore


def _embedding_forward(self: Any, ids: Tensor) -> Tensor:
    if is_transformed():
        return F.embedding(ids, self.weight, self.padding_idx)
    entries, weight = _weight_entries(self)
    if entries.is_watched:
        return F.embedding(ids, self.weight, self.padding_idx)
    if not len(entries.places):
        return F.embedding(ids, weight, self.padding_idx)
    return _SampledEmbedding.apply(ids, entries.values, weight, entries.places, self.padding_idx)  # type: ignore


def install(module: nn.Module, attribute: str, entries: Entries) -> None:
    """Give a layer whose `attribute` was just parametrized the faster forward, where there is one for its type.

    The forward is set on the class that parametrize made for this one module, so it goes when the parametrization
    goes, and copies of the module keep it.
    """
    if attribute != "weight":
        return
    kind = parametrize.type_before_parametrizations(module)
    if kind is nn.Linear:
        type(module).forward = _linear_forward
        entries.keep(pattern)
        if entries.block_size > 1 and entries.inactive == "zero":
            entries.keep(block_sparse.plan)
    elif kind is nn.Embedding and module.max_norm is None and not module.scale_grad_by_freq and not module.sparse:
        type(module).forward = _embedding_forward
