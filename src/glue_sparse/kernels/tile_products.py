"""Products with a matrix that has active tiles only, and their gradients, as `core/block_products.py` has them."""

from typing import Protocol

import torch
from torch import Tensor

from glue_sparse.kernels import backend

_LEAST_TOKENS = 512
"""Of a part of the tokens that a gradient of tiles is summed over."""


class Places(Protocol):
    """Where the k active tiles of a matrix lie; see `Places` in `core/block_products.py`."""

    @property
    def row_of(self) -> Tensor: ...
    @property
    def column_of(self) -> Tensor: ...
    @property
    def by_column(self) -> Tensor: ...
    @property
    def row_starts(self) -> Tensor: ...
    @property
    def column_starts(self) -> Tensor: ...
    @property
    def num_rows(self) -> int: ...
    @property
    def num_columns(self) -> int: ...
    @property
    def block_size(self) -> int: ...


def forward(x: Tensor, tiles: Tensor, bias: Tensor | None, places: Places) -> Tensor:
    """[t, in] x, [k, b, b] tiles and [out] bias to [t, out] y, all of one type; sums are float32."""
    return _product(x, tiles, bias, places, places.num_rows, places.row_starts, None, places.column_of)


def backward(
    grad: Tensor, x: Tensor | None, tiles: Tensor, places: Places, needs_x: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x, [t, in], if needed, and of the tiles, [k, b, b], if x is given, from that of y, [t, out]."""
    grad_x = None
    if needs_x:
        lines = places.num_columns, places.column_starts, places.by_column, places.row_of
        grad_x = _product(grad, tiles, None, places, *lines)
    return grad_x, None if x is None else _tile_gradients(grad, x, tiles, places)


def _product(
    x: Tensor, tiles: Tensor, bias: Tensor | None, places: Places, num_lines: int, starts: Tensor,
    order: Tensor | None, place_of: Tensor,
) -> Tensor:  # fmt: skip
    """[t, n b] to [t, num_lines b]: forward without an order of the tiles, else with transposed ones."""
    size, tokens = places.block_size, len(x)
    x, tiles = x.contiguous(), tiles.contiguous()
    out = x.new_empty(tokens, num_lines * size)
    if not out.numel():
        return out
    block_t, block_n = backend.block(tokens), backend.block(size, most=64)
    strides = (1, size) if order is None else (size, 1)
    grid = (num_lines * backend.ceil(size, block_n), backend.ceil(tokens, block_t))
    backend.launch(
        backend.code("tiles").line_product, grid, x, tiles, x if bias is None else bias.contiguous(), out, starts,
        place_of if order is None else order, place_of, tokens, x.shape[1], out.shape[1], SIZE=size,
        STRIDE_IN=strides[0], STRIDE_OUT=strides[1], HAS_ORDER=order is not None, HAS_BIAS=bias is not None,
        PRECISION=backend.precision(), RUN=_run(size), BLOCK_T=block_t, BLOCK_N=block_n, BLOCK_K=_depth(x, size),
    )  # fmt: skip
    return out


def _tile_gradients(grad: Tensor, x: Tensor, tiles: Tensor, places: Places) -> Tensor:
    """[t, out] and [t, in] to [k, b, b]."""
    size, tokens = places.block_size, len(x)
    if not tokens or not tiles.numel():
        return torch.zeros_like(tiles)
    grad, x = grad.contiguous(), x.contiguous()
    block_n, block_m = backend.block(size, most=64), backend.block(4 * size, least=64)
    pieces = backend.ceil(size, block_n)
    blocks = backend.ceil(min(len(tiles), places.num_columns) * size, block_m)  # of the fullest line there can be
    programs = pieces * max(places.num_rows, backend.ceil(len(tiles) * size, block_m))  # about so many have work
    parts = backend.parts(programs, tokens, _LEAST_TOKENS)
    block_t = _depth(x, size)
    each = backend.ceil(backend.ceil(tokens, parts), block_t) * block_t
    dtype = tiles.dtype if parts == 1 else torch.float32
    out = torch.empty(parts, *tiles.shape, dtype=dtype, device=tiles.device)
    backend.launch(
        backend.code("tiles").tile_gradients, (places.num_rows * pieces, blocks, parts), grad, x, out,
        places.row_starts, places.column_of, tiles.numel(), tokens, each, grad.shape[1], x.shape[1], SIZE=size,
        PRECISION=backend.precision(), RUN=_run(size), BLOCK_T=block_t, BLOCK_N=block_n, BLOCK_M=block_m,
    )  # fmt: skip
    return out[0] if parts == 1 else out.sum(0).to(tiles.dtype)


def _run(size: int) -> int:
    """The largest power of two that divides a size, at most 16: what is loaded at once is no longer."""
    return min(size & -size, 16)


def _depth(x: Tensor, size: int) -> int:
    """Numbers that a block sums over at once: half as many where each takes twice the room."""
    return backend.block(2 * size, least=32, most=64 if x.itemsize <= 2 else 32)
