"""Where the active entries of a matrix lie, arranged so that their gradient costs little: products of fewer rows and
columns, or a sampled product.

The gradient of a matrix is left^T right, from left [t, rows] and right [t, columns] of t tokens. Masks of most scores
touch few inputs of a layer, so that a dense product over those alone is cheap, and only those inputs have to be kept
for it. Scattered entries are cheaper one by one, but torch needs both sides transposed for that.
"""

import warnings
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from glue_sparse.core.chosen import narrow
from glue_sparse.core.operators import operator
from glue_sparse.core.parametrization import Entries
from glue_sparse.kernels import backend, sampled

_MAC, _DOT, _TRANSPOSE, _READ, _PICK = 0.04, 0.27, 1.4, 0.3, 0.4
"""Nanoseconds of a token for each entry of a product, each active entry of a sampled one, each number transposed, each
number of what others are picked from, and each of these, on one core of an AMD EPYC (Zen 3). Their ratios choose."""
_CORES = 4
"""That do the first two, as torch shares them out: a constant, or the choice, and with it the last bits of a gradient,
would not be the same with another number of threads, as ranks of a run have it."""
_CLEARLY, _LITTLE = 0.8, 1000.0
"""A pattern is used where it takes less than this share of the dense gradient's time, which is about as far as the
estimates are right, or so many nanoseconds of a token more, which is nothing, since the gradient of a whole matrix is
then never in memory."""
_BLOCK = 256
"""Tokens whose numbers are transposed at a time, in 0.6 of the time of all at once."""
_HALVES = (torch.bfloat16, torch.float16)
TYPES = (torch.float32, *_HALVES)
"""Of tensors whose gradients can be formed so."""
_HAS_UNITS = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
"""For half precision: without them a processor takes up to 100 times as long for a product as in float32."""


class Pattern(NamedTuple):
    """Which part of left and right is needed, and where in their product the active entries are.

    Attributes:
        rows: [r] int32, the rows of the matrix to form; all of them where there is none.
        columns: [c] int32, the same of its columns.
        starts: [r + 1] int32, where each row begins in `places`, for a sampled product; none for a dense one.
        places: [k] int32, columns among those to form; for a dense product flat positions in [r, c].
    """

    rows: Tensor | None
    columns: Tensor | None
    starts: Tensor | None
    places: Tensor


def pattern(entries: Entries) -> Pattern | None:
    """The pattern of a matrix [outputs, inputs, ...], none where on a CPU its dense gradient is the cheaper one.

    Ask for it by `entries.derived(pattern)`. Dimensions after the first are taken as one. On a GPU it is for the kernel
    of sampled products, where `pays` says so.
    """
    return _pattern(entries, inputs=1)


def pattern_inputs_first(entries: Entries) -> Pattern | None:
    """The same of a matrix [inputs, outputs]."""
    return _pattern(entries, inputs=0)


def _pattern(entries: Entries, inputs: int) -> Pattern | None:
    device = entries.places.device
    by_kernel = backend.available(device, entries.dtype)
    if entries.dtype not in TYPES or not len(entries.places) or not (by_kernel or device.type == "cpu"):
        return None
    size = entries.shape[0], entries.shape[1:].numel()
    row_of, column_of = entries.indices // size[1], entries.indices % size[1]
    used = [_used(row_of, size[0]), _used(column_of, size[1])]
    if len(used[inputs]) > size[inputs] / 2:  # layers that share an input would keep it more than once
        used[inputs] = torch.arange(size[inputs], device=device)
    outputs = 1 - inputs
    if by_kernel:
        samples, picks = True, len(used[outputs]) <= size[outputs] / 2
    elif (way := _cheapest(size, used, outputs, len(entries.places))) is None:
        return None
    else:
        samples, picks = way
    if not picks:
        used[outputs] = torch.arange(size[outputs], device=device)
    return _arranged(row_of, column_of, used, size, samples)


def _cheapest(size: tuple[int, int], used: list[Tensor], outputs: int, k: int) -> tuple[bool, bool] | None:
    """Whether to sample, and whether to pick outputs in use; none where the dense gradient is cheaper."""
    num_inputs = len(used[1 - outputs])
    is_picked = num_inputs < size[1 - outputs]
    costs: dict[tuple[bool, bool], float] = {}
    for picks in (False, True):
        num_outputs = len(used[outputs]) if picks else size[outputs]
        picking = (_READ * size[outputs] + _PICK * num_outputs) * picks
        picking += (_READ * size[1 - outputs] + _PICK * num_inputs) * is_picked
        if 2 * num_outputs * num_inputs <= size[0] * size[1]:  # more of it saves little
            costs[False, picks] = picking + _MAC / _CORES * num_outputs * num_inputs
        costs[True, picks] = picking + _TRANSPOSE * (num_outputs + num_inputs) + _DOT / _CORES * k
    way, cost = min(costs.items(), key=lambda item: item[1])
    return way if cost < _CLEARLY * _MAC / _CORES * size[0] * size[1] + _LITTLE else None


def _arranged(row_of: Tensor, column_of: Tensor, used: list[Tensor], size: tuple[int, int], samples: bool) -> Pattern:
    rows, columns = (one if len(one) < full else None for one, full in zip(used, size, strict=True))
    if rows is not None:
        row_of = torch.searchsorted(rows, row_of)
    if columns is not None:
        column_of = torch.searchsorted(columns, column_of)
    num_rows, num_columns = map(len, used)
    rows, columns = (None if one is None else one.int() for one in (rows, columns))
    if samples:
        borders = torch.arange(num_rows + 1, device=row_of.device)
        return Pattern(rows, columns, torch.searchsorted(row_of, borders).int(), column_of.int())
    return Pattern(rows, columns, None, narrow(row_of * num_columns + column_of, num_rows * num_columns))


def _used(numbers: Tensor, count: int) -> Tensor:
    return torch.bincount(numbers, minlength=count).nonzero().squeeze(1)


def gradient_at(left: Tensor, right: Tensor, starts: Tensor | None, places: Tensor) -> Tensor:
    """left^T right at the entries of a pattern: [..., r] and [..., c] of its rows and columns to [k]."""
    if starts is not None:
        return sampled_product(left, right, starts, places)
    if left.dtype in _HALVES and not _HAS_UNITS:
        left, right = left.float(), right.float()
    left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
    # a narrow matrix comes first, which takes half the time where it has a few columns
    product = left.t() @ right if left.shape[1] < right.shape[1] else (right.t() @ left).t()
    return product.reshape(-1).index_select(0, places)


@operator(
    "sampled_product(Tensor grad, Tensor x, Tensor starts, Tensor columns) -> Tensor",
    lambda grad, x, starts, columns: grad.new_empty(columns.shape, dtype=torch.float32),
)
def sampled_product(grad: Tensor, x: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """grad^T x at the entries of a CSR pattern, summed in float32.

    Args:
        grad: [..., out].
        x: [..., in].
        starts: [out + 1] int32.
        columns: [k] int32.
    Returns:
        [k] float32.
    """
    rows, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
    if backend.available(rows.device, rows.dtype):
        return sampled.sampled_product(rows, inputs, starts, columns)
    announced()
    size = (rows.shape[1], inputs.shape[1])
    zeros = torch.zeros(columns.shape, device=rows.device)
    places = torch.sparse_csr_tensor(starts, columns, zeros, size, check_invariants=False)
    return torch.sparse.sampled_addmm(places, _turned(rows.float()), _turned(inputs.float()).t(), beta=0.0).values()


def _turned(x: Tensor) -> Tensor:
    """The transposed matrix, contiguous, as `sampled_addmm` would make it, by blocks that stay in the cache."""
    if x.device.type != "cpu":
        return x.t()
    turned = x.new_empty(x.shape[1], x.shape[0])
    for block, rows in zip(turned.split(_BLOCK, 1), x.split(_BLOCK), strict=True):
        block.copy_(rows.t())
    return turned


@cache
def announced() -> None:
    """Let torch say here, unheard, what it says once a process: that its CSR tensors are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.zeros(1, 1).to_sparse_csr()
