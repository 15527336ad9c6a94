"""Layers that compute with the active tiles of a matrix only: the product, its gradients, and when it pays.

Tiles are b x b. Time and memory of the weight's products go with the number of active tiles; a dense matrix, or a dense
gradient of it, is never formed (Dietrich et al., 2021, arXiv 2108.06277, count the work of a sparse layer in this way).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glue_sparse.core import block_products, tile_trial, tiles, trials
from glue_sparse.core.block_products import Places
from glue_sparse.core.operators import operator, owned
from glue_sparse.core.parametrization import Entries
from glue_sparse.writing.words import check_one_of

Execution = Literal["auto", "tiles", "masked"]
"""How layers with active tiles compute: where `wins` says so by tiles, always by tiles, never."""

_execution: Execution = "auto"
_MAX_DENSITY = {
    torch.float32: {8: 0.06, 16: 0.26, 32: 0.26, 64: 0.26},
    torch.bfloat16: {16: 0.06, 32: 0.26, 64: 0.26},
}
"""Type of the products -> side of a tile -> density up to which `glue-sparse benchmark --block_sparse` shows a gain; it
measures densities up to 0.25."""
_MIN_WORK = {torch.float32: 2**21, torch.bfloat16: 2**24}
"""tokens x side of the matrix x side of a tile; below it the fixed cost of many products outweighs what they save."""
_MIN_SIDE = 256
_MIN_TOKENS = 64
"""On a GPU; with fewer a product takes as long as its launch, whatever it does."""


@contextmanager
def execution(way: Execution) -> Iterator[None]:
    """Within the block, layers whose active entries form tiles compute in this way; results differ by rounding.

    Raises:
        ValueError: an unknown way.
    """
    global _execution
    check_one_of("execution", way, get_args(Execution))
    before, _execution = _execution, way
    try:
        yield
    finally:
        _execution = before


def runs(
    device: torch.device, dtype: torch.dtype, shape: torch.Size, block_size: int, density: float, tokens: int
) -> bool:
    """Whether a layer with tiles computes by tiles here and now; arguments as for `wins`."""
    if _execution == "auto":
        return wins(device, dtype, shape, block_size, density, tokens)
    return _execution == "tiles"


def wins(
    device: torch.device, dtype: torch.dtype, shape: torch.Size, block_size: int, density: float, tokens: int
) -> bool:
    """Whether computing by tiles was measured to be faster than with a masked dense matrix.

    On a GPU it is measured at the first use of a kind of layer, in about a second, and kept; see `measured`.

    Args:
        dtype: of the products, bfloat16 under autocast.
        shape: of the matrix.
        density: active share of its entries.
        tokens: rows that it multiplies.
    """
    if min(shape) < _MIN_SIDE:
        return False
    if device.type != "cpu":
        if block_size == 1 or tokens < _MIN_TOKENS:
            return False
        side, tokens = trials.kind(shape.numel(), tokens)
        return density <= _max_density(device, dtype, side, block_size, tokens)
    if dtype not in _MAX_DENSITY:
        return False
    limits = [limit for size, limit in _MAX_DENSITY[dtype].items() if size <= block_size]
    work = tokens * (shape[0] * shape[1]) ** 0.5 * block_size
    return density <= max(limits, default=0.0) and work >= _MIN_WORK[dtype]


@trials.as_constant
def _max_density(device: torch.device, dtype: torch.dtype, side: int, block_size: int, tokens: int) -> float:
    """See `tile_trial.max_density`."""
    return tile_trial.max_density(device, dtype, side, block_size, tokens, _of_mask)


def _of_mask(mask: Tensor, block_size: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A layer with these tiles, for a trial."""
    made = plan_of(mask, block_size)
    of_entries = EntriesPlan(made, *made.runs())
    return lambda x, values: linear_of_entries(x, values, x.dtype, of_entries, None)


class Plan:
    """Which tiles of a matrix are active, arranged for each product; built once for each pattern.

    Args:
        positions: [k] int64, sorted; tile (i, j) is number i * columns + j.
        rows, columns: tiles across the matrix.
        block_size: side of a tile, in entries.
    """

    def __init__(self, positions: Tensor, rows: int, columns: int, block_size: int):
        row_of, column_of = positions // columns, positions % columns
        self.block_size, self.num_tiles = block_size, len(positions)
        self.in_features, self.out_features = columns * block_size, rows * block_size
        by_column = column_of.argsort(stable=True)
        starts = _starts(row_of, rows), _starts(column_of[by_column], columns)
        self.places = Places(row_of, column_of, by_column, *starts, rows, columns, block_size)

    def runs(self) -> tuple[Tensor, Tensor]:
        """Orders of the runs of b entries: entries in flat order of the matrix to tiles, and back."""
        row_of, size = self.places.row_of, self.block_size
        counts = torch.bincount(row_of, minlength=self.places.num_rows)
        before = (counts.cumsum(0) - counts)[row_of]  # tiles of the rows above
        number = torch.arange(self.num_tiles, device=row_of.device) - before  # of a tile within its row
        inside = torch.arange(size, device=row_of.device)
        to_tiles = (before * size + number)[:, None] + inside * counts[row_of][:, None]
        return to_tiles.flatten(), to_tiles.flatten().argsort()


def _starts(line_of: Tensor, num_lines: int) -> Tensor:
    """[num_lines + 1] int32, where each line begins among tiles that come line by line."""
    return torch.searchsorted(line_of, torch.arange(num_lines + 1, device=line_of.device), out_int32=True)


def plan_of(mask: Tensor, block_size: int) -> Plan:
    """The plan of a matrix whose active tiles are those of a [rows, columns] bool mask of tiles."""
    return Plan(mask.flatten().nonzero().squeeze(1), mask.shape[0], mask.shape[1], block_size)


class EntriesPlan(NamedTuple):
    """The plan of a matrix with active entries, and the orders of their runs: see `Plan.runs`."""

    plan: Plan
    to_tiles: Tensor
    to_flat: Tensor


def plan(entries: Entries) -> EntriesPlan:
    """The plan of a matrix with active entries; ask for it by `entries.derived(plan)`.

    Raises:
        ValueError: they do not form whole tiles, or tiles do not cover the matrix.
    """
    tiles.check("the tensor", entries.shape, entries.block_size)
    mask = torch.zeros(entries.shape, dtype=torch.bool, device=entries.indices.device)
    mask.view(-1)[entries.indices] = True
    made = plan_of(tiles.gathered(mask, entries.block_size), entries.block_size)
    return EntriesPlan(made, *made.runs())


class _Reordered(torch.autograd.Function):
    """[k b b] entries in flat order of the matrix as [k, b, b] tiles."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, to_tiles: Tensor, to_flat: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(to_flat)
        ctx.size = size
        return values.view(-1, size).index_select(0, to_tiles).view(-1, size, size)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (to_flat,) = ctx.saved_tensors
        return grad_outputs[0].reshape(-1, ctx.size).index_select(0, to_flat).flatten(), None, None, None


_PLACES = (
    "Tensor row_of, Tensor column_of, Tensor by_column, Tensor row_starts, Tensor column_starts, int num_rows, "
    "int num_columns"
)


def _product_shape(x: Tensor, active: Tensor, bias: Tensor | None, *places: Any) -> Tensor:
    return x.new_empty((*x.shape[:-1], places[5] * active.shape[-1]))


@operator(f"tile_product(Tensor x, Tensor tiles, Tensor? bias, {_PLACES}) -> Tensor", _product_shape)
def _product(x: Tensor, active: Tensor, bias: Tensor | None, *places: Any) -> Tensor:
    """y = x W^T + b, [..., in] to [..., out]; the last arguments are the fields of `Places`, without `block_size`."""
    found = Places(*places, block_size=active.shape[-1])
    y = block_products.forward(x.reshape(-1, x.shape[-1]), active, bias, found)
    return owned(y.view(*x.shape[:-1], y.shape[-1]))


def _gradients_shape(
    grad: Tensor, x: Tensor | None, active: Tensor, needs_x: bool, *places: Any
) -> tuple[Tensor, Tensor]:
    shape = (*grad.shape[:-1], places[6] * active.shape[-1])
    return grad.new_empty(shape if needs_x else 0), active.new_empty(0 if x is None else active.shape)


@operator(
    f"tile_gradients(Tensor grad, Tensor? x, Tensor tiles, bool needs_x, {_PLACES}) -> (Tensor, Tensor)",
    _gradients_shape,
)
def _gradients(grad: Tensor, x: Tensor | None, active: Tensor, needs_x: bool, *places: Any) -> tuple[Tensor, Tensor]:
    """Gradients of x, where needed, and of the tiles, where x is given; what is not asked for is empty."""
    found = Places(*places, block_size=active.shape[-1])
    flat = None if x is None else x.reshape(-1, x.shape[-1])
    rows = grad.reshape(-1, grad.shape[-1])
    grad_x, grad_tiles = block_products.backward(rows, flat, active, found, needs_x)
    grad_x = grad.new_empty(0) if grad_x is None else owned(grad_x.view(*grad.shape[:-1], grad_x.shape[-1]))
    return grad_x, active.new_empty(0) if grad_tiles is None else grad_tiles


class _TileLinear(torch.autograd.Function):
    """y = x W^T + b and its gradients; all inputs are of one type."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, active: Tensor, bias: Tensor | None, row_of: Tensor, column_of: Tensor, by_column: Tensor,
        row_starts: Tensor, column_starts: Tensor, num_rows: int, num_columns: int,
    ) -> Tensor:  # fmt: skip
        places = row_of, column_of, by_column, row_starts, column_starts
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, active, *places)
        ctx.sizes = num_rows, num_columns
        return _product(x, active, bias, *places, num_rows, num_columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, active, *places = ctx.saved_tensors
        needs_x, _, needs_bias, *_ = ctx.needs_input_grad
        grad = grad_outputs[0]
        grad_x = grad_tiles = None
        if needs_x or x is not None:
            grad_x, grad_tiles = _gradients(grad, x, active, needs_x, *places, *ctx.sizes)
        grad_bias = grad.reshape(-1, grad.shape[-1]).sum(0) if needs_bias else None
        return grad_x if needs_x else None, None if x is None else grad_tiles, grad_bias, *(None,) * 7


def linear(x: Tensor, active: Tensor, plan: Plan, bias: Tensor | None = None) -> Tensor:
    """y = x W^T + b for a W of which only tiles exist, with the types that `F.linear` has, under autocast too.

    On a CPU each line of tiles is one product. On a GPU kernels multiply tiles where they lie; no GPU has run them yet,
    only Triton's interpreter. Elsewhere one batched product multiplies all tiles, and what belongs to an output is
    summed.

    Args:
        x: [..., in].
        active: [k, b, b], the tiles, row by row; their gradient has their type.
        bias: [out].
    Returns:
        [..., out].
    Raises:
        ValueError: x has another width than the matrix.
    """
    if x.shape[-1] != plan.in_features:
        raise ValueError(f"inputs of {x.shape[-1]} features do not fit a matrix of {plan.in_features}")
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, active = _cast(x, dtype), _cast(active, dtype)
        bias = None if bias is None else _cast(bias, dtype)
    return _TileLinear.apply(x, active, bias, *plan.places[:7])  # pyright: ignore[reportReturnType]


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)


def linear_of_entries(x: Tensor, values: Tensor, dtype: torch.dtype, plan: EntriesPlan, bias: Tensor | None) -> Tensor:
    """As `linear`, from [k b b] values of active entries in flat order, which multiply as `dtype`."""
    made, *orders = plan
    active: Tensor = _Reordered.apply(values, *orders, made.block_size)  # pyright: ignore[reportAssignmentType]
    return linear(x, active.to(dtype), made, bias)
