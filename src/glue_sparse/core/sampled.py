"""Faster insides for layers with few active entries: products with active tiles alone, gradients at active entries.

`install` swaps the forward of one parametrized layer. The result equals the plain path up to rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from glue_sparse.core import block_sparse, sampled_trial, trials
from glue_sparse.core.kept_inputs import again, is_kept_anyway, picked
from glue_sparse.core.operators import is_transformed, note, operator, owned, read
from glue_sparse.core.parametrization import Entries
from glue_sparse.core.patterns import TYPES, Pattern, gradient_at, pattern, pattern_inputs_first
from glue_sparse.core.sampled_convolutions import KINDS, convolution_pattern, convolved, is_followed
from glue_sparse.kernels import backend


@operator(
    "linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    lambda x, weight, bias: x.new_empty((*x.shape[:-1], weight.shape[0])),
)
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`, whose result is no view."""
    return owned(F.linear(x, weight, bias))


@operator(
    "linear_inputs_first(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    lambda x, weight, bias: x.new_empty((*x.shape[:-1], weight.shape[1])),
)
def _linear_inputs_first(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W + b as `Conv1D` of transformers computes it, whose result is no view."""
    rows = x.reshape(-1, x.shape[-1])
    y = rows @ weight if bias is None else torch.addmm(bias, rows, weight)
    return owned(y.view(*x.shape[:-1], y.shape[-1]))


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
        return read(dense, indices, ctx.dtype), None, None, None


class _SampledLinear(torch.autograd.Function):
    """y = x W^T + b, or x W + b, whose weight gradient is formed at a pattern only; keeps the inputs that it needs.

    Products are of `dtype`, which is autocast's within its block.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, values: Tensor, weight: Tensor, dtype: torch.dtype,
        inputs_first: bool, is_sharded: bool, rows: Tensor | None, columns: Tensor | None, starts: Tensor | None,
        places: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.dtype, ctx.inputs_first = x.dtype, inputs_first
        inputs, outputs = (rows, columns) if inputs_first else (columns, rows)
        needs = ctx.needs_input_grad[2] and not is_kept_anyway(x, inputs, is_sharded)
        x = x.to(dtype)
        kept = picked(x, inputs) if needs else None
        ctx.save_for_backward(kept, weight if ctx.needs_input_grad[0] else None, inputs, outputs, starts, places)
        product = _linear_inputs_first if inputs_first else _linear
        return product(x, weight.to(dtype), None if bias is None else bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        kept, weight, inputs, outputs, starts, places = ctx.saved_tensors
        grad, grad_x, grad_values = grad_outputs[0], None, None
        if ctx.needs_input_grad[2]:  # first, because its scratch space is freed before grad_x is made
            if kept is None:
                remade = again(ctx.next_functions[0][0], inputs)
                assert remade is not None  # or `is_kept_anyway` had said so
                kept = remade.to(grad.dtype)
            sides = picked(grad, outputs), kept
            left, right = reversed(sides) if ctx.inputs_first else sides
            grad_values = gradient_at(left, right, starts, places).float()
            del kept, sides, left, right
        grad_bias = grad.reshape(-1, grad.shape[-1]).sum(0) if ctx.needs_input_grad[1] else None
        if ctx.needs_input_grad[0]:
            matrix = weight.to(grad.dtype)
            grad_x = (grad @ (matrix.t() if ctx.inputs_first else matrix)).to(ctx.dtype)
        return grad_x, grad_bias, grad_values, *(None,) * 8


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


def _product_type(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """The type in which a layer multiplies here, none where `TYPES` lacks it or the layer itself would refuse."""
    if x.dtype not in TYPES:
        return None
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype if x.dtype == weight.dtype else None


def _found_pattern(
    self: Any, x: Tensor, make: Callable[[Entries], Pattern | None]
) -> tuple[Pattern, torch.dtype] | None:
    """The pattern at which a layer's gradient is formed, and its products' type; none where it goes the plain way."""
    stack = self.parametrizations["weight"]
    found = stack[0].derived(make)
    if found is None or stack[0].is_watched or not torch.is_grad_enabled():
        return None
    dtype = _product_type(x, stack.original)
    return (found, dtype) if dtype in TYPES and _pays(stack[0], x, dtype) else None


def _pays(entries: Entries, x: Tensor, dtype: torch.dtype) -> bool:
    """Whether a pattern's gradient was measured to be the faster one; of a CPU's pattern that is known."""
    if not backend.available(x.device, dtype):
        return x.device.type == "cpu"
    num_entries = entries.shape.numel()
    limit = _max_density(x.device, dtype, *trials.kind(num_entries, x.numel() // max(1, x.shape[-1])))
    return len(entries.places) <= limit * num_entries


@trials.as_constant
def _max_density(device: torch.device, dtype: torch.dtype, side: int, tokens: int) -> float:
    """See `sampled_trial.max_density`."""
    return sampled_trial.max_density(device, dtype, side, tokens)


def _sampled_linear(self: Any, x: Tensor, make: Callable[[Entries], Pattern | None]) -> Tensor | None:
    found = _found_pattern(self, x, make)
    if found is None:
        return None
    (places, dtype), (entries, weight) = found, _weight_entries(self)
    how = dtype, make is pattern_inputs_first, entries.is_sharded
    return _SampledLinear.apply(x, self.bias, entries.values, weight, *how, *places)  # type: ignore


def _linear_forward(self: Any, x: Tensor) -> Tensor:
    if is_transformed():
        return F.linear(x, self.weight, self.bias)
    stack = self.parametrizations["weight"]
    if _runs_by_tiles(stack[0], stack.original, x):  # the full weight is neither written to nor read
        plan = stack[0].derived(block_sparse.plan)
        return block_sparse.linear_of_entries(x, stack[0].values, stack.original.dtype, plan, self.bias)
    y = _sampled_linear(self, x, pattern)
    return F.linear(x, self.weight, self.bias) if y is None else y


def _inputs_first_forward(self: Any, x: Tensor) -> Tensor:
    y = None if is_transformed() else _sampled_linear(self, x, pattern_inputs_first)
    return Conv1D.forward(self, x) if y is None else y


def _convolution_forward(self: Any, x: Tensor) -> Tensor:
    is_batch = x.dim() == len(self.kernel_size) + 2
    found = _found_pattern(self, x, convolution_pattern) if is_batch and not is_transformed() else None
    if found is None:
        return self._conv_forward(x, self.weight, self.bias)
    (places, dtype), (entries, weight) = found, _weight_entries(self)
    return convolved(self, x, entries.values, weight, dtype, places)


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
    elif kind is Conv1D:
        type(module).forward = _inputs_first_forward
        entries.keep(pattern_inputs_first)
    elif kind in KINDS and is_followed(module):
        type(module).forward = _convolution_forward
        entries.keep(convolution_pattern)
    elif kind is nn.Embedding and module.max_norm is None and not module.scale_grad_by_freq and not module.sparse:
        type(module).forward = _embedding_forward
