"""Layers that compute with the active tiles of a matrix only: the product, its gradients, and when it pays.

Tiles are b x b. Time and memory of the weight's products go with the number of active tiles; a dense matrix, or a dense
gradient of it, is never formed (Dietrich et al., 2021, arXiv 2108.06277, count the work of a sparse layer in this way).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from glue_sparse.core import block_products, tiles
from glue_sparse.core.block_products import Places
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

    Args:
        dtype: of the products, bfloat16 under autocast.
        shape: of the matrix.
        density: active share of its entries.
        tokens: rows that it multiplies.
    """
    if device.type != "cpu" or dtype not in _MAX_DENSITY or min(shape) < _MIN_SIDE:
        return False
    limits = [limit for size, limit in _MAX_DENSITY[dtype].items() if size <= block_size]
    work = tokens * (shape[0] * shape[1]) ** 0.5 * block_size
    return density <= max(limits, default=0.0) and work >= _MIN_WORK[dtype]


class Plan:
    """Which tiles of a matrix are active, arranged for each product; built once for each pattern.

    Args:
        mask: [rows, columns] of tiles, bool.
        block_size: side of a tile, in entries.
    """

    def __init__(self, mask: Tensor, block_size: int):
        row_of, column_of = mask.nonzero().unbind(1)
        self.block_size, self.num_tiles = block_size, len(row_of)
        self.in_features, self.out_features = (size * block_size for size in (mask.shape[1], mask.shape[0]))
        columns = [line.nonzero().squeeze(1).tolist() for line in mask.t().cpu()]
        rows = [line.nonzero().squeeze(1).tolist() for line in mask.cpu()]
        self.places = Places(rows, columns, column_of.argsort(stable=True), row_of, column_of, block_size)
        self._runs: tuple[Tensor, Tensor] | None = None

    @property
    def runs(self) -> tuple[Tensor, Tensor]:
        """Orders of the runs of b entries: entries in flat order of the matrix to tiles, and back."""
        if self._runs is None:
            row_of, size = self.places.row_of, self.block_size
            counts = torch.bincount(row_of, minlength=len(self.places.rows))
            before = (counts.cumsum(0) - counts)[row_of]  # tiles of the rows above
            number = torch.arange(self.num_tiles, device=row_of.device) - before  # of a tile within its row
            inside = torch.arange(size, device=row_of.device)
            to_tiles = (before * size + number)[:, None] + inside * counts[row_of][:, None]
            self._runs = to_tiles.flatten(), to_tiles.flatten().argsort()
        return self._runs


def plan(entries: Entries) -> Plan:
    """The plan of a matrix with active entries; ask for it by `entries.derived(plan)`.

    Raises:
        ValueError: they do not form whole tiles, or tiles do not cover the matrix.
    """
    tiles.check("the tensor", entries.shape, entries.block_size)
    mask = torch.zeros(entries.shape, dtype=torch.bool, device=entries.indices.device)
    mask.view(-1)[entries.indices] = True
    return Plan(tiles.gathered(mask, entries.block_size), entries.block_size)


class _Reordered(torch.autograd.Function):
    """[k b b] entries in flat order of the matrix as [k, b, b] tiles."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, plan: Plan) -> Tensor:
        ctx.plan = plan
        size = plan.block_size
        return values.view(-1, size).index_select(0, plan.runs[0]).view(-1, size, size)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        flat = grad_outputs[0].reshape(-1, ctx.plan.block_size)
        return flat.index_select(0, ctx.plan.runs[1]).flatten(), None


class _TileLinear(torch.autograd.Function):
    """y = x W^T + b and its gradients; all inputs are of one type."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, active: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
        flat = x.reshape(-1, plan.in_features)
        ctx.save_for_backward(flat if ctx.needs_input_grad[1] else None, active)
        ctx.plan, ctx.shape = plan, x.shape
        y = block_products.forward(flat, active, bias, plan.places)
        return y.view(*x.shape[:-1], plan.out_features)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, active = ctx.saved_tensors
        needs_x, _, needs_bias, _ = ctx.needs_input_grad
        grad = grad_outputs[0].reshape(-1, ctx.plan.out_features)
        grad_x = grad_tiles = None
        if needs_x or x is not None:
            grad_x, grad_tiles = block_products.backward(grad, x, active, ctx.plan.places, needs_x)
        grad_x = None if grad_x is None else grad_x.view(ctx.shape)
        return grad_x, grad_tiles, grad.sum(0) if needs_bias else None, None


def linear(x: Tensor, active: Tensor, plan: Plan, bias: Tensor | None = None) -> Tensor:
    """y = x W^T + b for a W of which only tiles exist, with the types that `F.linear` has, under autocast too.

    On a CPU each line of tiles is one product. Elsewhere one batched product multiplies all tiles, and what belongs to
    an output is summed: made of torch's own products, but never run on a GPU by us.

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
    return _TileLinear.apply(x, active, bias, plan)  # pyright: ignore[reportReturnType]


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)


def linear_of_entries(x: Tensor, values: Tensor, dtype: torch.dtype, plan: Plan, bias: Tensor | None) -> Tensor:
    """As `linear`, from [k b b] values of active entries in flat order, which multiply as `dtype`."""
    return linear(x, _Reordered.apply(values, plan).to(dtype), plan, bias)  # pyright: ignore
