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

_MAC, _DOT, _TRANSPOSE, _SELECT = 0.04, 0.27, 2.0, 0.6
"""Nanoseconds of a token for each entry of a product, each active entry of a sampled one, each number transposed, and
each number picked out, on one core of an AMD EPYC (Zen 3); torch does the first two on all cores. Their ratios choose
the way, the same way each time on a machine."""
_CLEARLY, _LITTLE = 0.8, 100.0
"""A pattern is used where it takes less than this share of the dense gradient's time, which is about as far as the
estimates are right, or so many nanoseconds of a token more, which is nothing, since the gradient of a whole matrix is
then never in memory."""
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
    """The pattern of a matrix [outputs, inputs, ...], none where its dense gradient is the cheaper one.

    Ask for it by `entries.derived(pattern)`. Dimensions after the first are taken as one.
    """
    return _pattern(entries, inputs=1)


def pattern_inputs_first(entries: Entries) -> Pattern | None:
    """The same of a matrix [inputs, outputs]."""
    return _pattern(entries, inputs=0)


def _pattern(entries: Entries, inputs: int) -> Pattern | None:
    if entries.places.device.type != "cpu" or entries.dtype not in TYPES or not len(entries.places):
        return None
    num_rows, num_columns = entries.shape[0], entries.shape[1:].numel()
    row_of, column_of = entries.indices // num_columns, entries.indices % num_columns
    used = [_used(row_of, num_rows), _used(column_of, num_columns)]
    sizes, outputs, k = [num_rows, num_columns], 1 - inputs, len(entries.places)
    is_kept_whole = len(used[inputs]) > sizes[inputs] / 2  # layers that share an input would keep it more than once
    counts = [len(one) for one in used]
    counts[inputs] = sizes[inputs] if is_kept_whole else counts[inputs]
    threads = torch.get_num_threads()
    costs: dict[tuple[bool, bool], float] = {}
    for picks in (False, True):
        size = counts[outputs] if picks else sizes[outputs]
        picking = _SELECT * ((size if picks else 0) + (0 if is_kept_whole else counts[inputs]))
        if size * counts[inputs] < num_rows * num_columns:
            costs[False, picks] = picking + _MAC / threads * size * counts[inputs]
        costs[True, picks] = picking + _TRANSPOSE * (size + counts[inputs]) + _DOT / threads * k
    (samples, picks), cost = min(costs.items(), key=lambda item: item[1])
    if cost >= _CLEARLY * _MAC / threads * num_rows * num_columns + _LITTLE:
        return None
    chosen = {inputs: None if is_kept_whole else used[inputs], outputs: used[outputs] if picks else None}
    return _arranged(row_of, column_of, chosen[0], chosen[1], (num_rows, num_columns), samples)


def _arranged(
    row_of: Tensor, column_of: Tensor, rows: Tensor | None, columns: Tensor | None, size: tuple[int, int], samples: bool
) -> Pattern:
    if rows is not None:
        row_of, size = torch.searchsorted(rows, row_of), (len(rows), size[1])
    if columns is not None:
        column_of, size = torch.searchsorted(columns, column_of), (size[0], len(columns))
    rows, columns = (None if one is None else one.int() for one in (rows, columns))
    if samples:
        starts = torch.searchsorted(row_of, torch.arange(size[0] + 1)).int()
        return Pattern(rows, columns, starts, column_of.int())
    return Pattern(rows, columns, None, narrow(row_of * size[1] + column_of, size[0] * size[1]))


def _used(numbers: Tensor, count: int) -> Tensor:
    return torch.bincount(numbers, minlength=count).nonzero().squeeze(1)


def gradient_at(left: Tensor, right: Tensor, starts: Tensor | None, places: Tensor) -> Tensor:
    """left^T right at the entries of a pattern: [..., r] and [..., c] of its rows and columns to [k].

    Half precision is left for float32 where this machine has no units for it, and for a sampled product.
    """
    if left.dtype in _HALVES and (starts is not None or not _HAS_UNITS):
        left, right = left.float(), right.float()
    if starts is not None:
        return sampled_product(left, right, starts, places)
    product = left.reshape(-1, left.shape[-1]).t() @ right.reshape(-1, right.shape[-1])
    return product.reshape(-1).index_select(0, places)


@operator(
    "sampled_product(Tensor grad, Tensor x, Tensor starts, Tensor columns) -> Tensor",
    lambda grad, x, starts, columns: grad.new_empty(columns.shape),
)
def sampled_product(grad: Tensor, x: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """grad^T x at the entries of a CSR pattern: [..., out] and [..., in] to [k]; [out + 1] int32 and [k] int32."""
    rows, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
    announced()
    size = (rows.shape[1], inputs.shape[1])
    zeros = rows.new_zeros(columns.shape)
    places = torch.sparse_csr_tensor(starts, columns, zeros, size, check_invariants=False)
    return torch.sparse.sampled_addmm(places, rows.t(), inputs, beta=0.0).values()


@cache
def announced() -> None:
    """Let torch say here, unheard, what it says once a process: that its CSR tensors are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.zeros(1, 1).to_sparse_csr()
