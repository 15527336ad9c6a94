"""Kernels of products with a matrix of which only tiles of SIZE x SIZE entries exist.

A line is a row of tiles, or a column of them. The entries that the tiles of a line have side by side are numbered
through, p = tile * SIZE + place in the tile, and blocks are cut out of these numbers: so blocks may be larger than
tiles, or smaller, and no size of tiles is a case of its own. RUN is a power of two that divides SIZE: so many entries
follow each other in memory wherever a tile lies, which lets the compiler load them together.
"""

import triton
import triton.language as tl


@triton.jit
def line_product(
    x, tiles, bias, out, starts, order, place_of, tokens, x_width, out_width,
    SIZE: tl.constexpr, STRIDE_IN: tl.constexpr, STRIDE_OUT: tl.constexpr, HAS_ORDER: tl.constexpr,
    HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr, RUN: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """out[t, line] = sum over the tiles of the line of x[t, the tile's place] times the tile, plus bias.

    Forward, lines are rows and places columns; for the gradient of x it is the other way round, and tiles are reached
    by `order`. STRIDE_IN and STRIDE_OUT are those of a tile's entries along what is summed over, and along the line.
    """
    pieces = tl.cdiv(SIZE, BLOCK_N)
    line = tl.program_id(0) // pieces
    n = tl.program_id(0) % pieces * BLOCK_N + tl.arange(0, BLOCK_N)
    t = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    first = tl.load(starts + line)
    depth = (tl.load(starts + line + 1) - first) * SIZE
    rows = x + t.to(tl.int64)[:, None] * x_width
    sums = tl.zeros((BLOCK_T, BLOCK_N), dtype=tl.float32)
    for start in range(0, depth, BLOCK_K):
        p = start + tl.arange(0, BLOCK_K)
        is_in = p < depth
        tile = (first + p // SIZE).to(tl.int64)
        if HAS_ORDER:
            tile = tl.load(order + tile, mask=is_in, other=0)
        place = tl.load(place_of + tile, mask=is_in, other=0) * SIZE + p % SIZE
        place = tl.max_contiguous(tl.multiple_of(place, RUN), RUN)
        inputs = tl.load(rows + place[None, :], mask=(t < tokens)[:, None] & is_in[None, :], other=0.0)
        inside = tile * (SIZE * SIZE) + p % SIZE * STRIDE_IN
        if STRIDE_IN == 1:
            inside = tl.max_contiguous(tl.multiple_of(inside, RUN), RUN)
        mask = is_in[:, None] & (n < SIZE)[None, :]
        held = tl.load(tiles + inside[:, None] + n[None, :] * STRIDE_OUT, mask=mask, other=0.0)
        sums = tl.dot(inputs, held, sums, input_precision=PRECISION)
    if HAS_BIAS:
        sums += tl.load(bias + line * SIZE + n, mask=n < SIZE, other=0.0).to(tl.float32)[None, :]
    places = out + t.to(tl.int64)[:, None] * out_width + line * SIZE + n[None, :]
    tl.store(places, sums.to(out.dtype.element_ty), mask=(t < tokens)[:, None] & (n < SIZE)[None, :])


@triton.jit
def tile_gradients(
    grad, x, out, starts, column_of, num_entries, tokens, tokens_each, grad_width, x_width,
    SIZE: tl.constexpr, PRECISION: tl.constexpr, RUN: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """out[part, tile] = sum over the part's tokens t of grad[t, the tile's row]^T x[t, its column].

    One program for some of the entries that the tiles of a row have side by side, and a part of the tokens: the tiles
    of a block share what is loaded of `grad`.
    """
    pieces = tl.cdiv(SIZE, BLOCK_N)
    line = tl.program_id(0) // pieces
    n = tl.program_id(0) % pieces * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.load(starts + line)
    width = (tl.load(starts + line + 1) - first) * SIZE
    if tl.program_id(1) * BLOCK_M < width:
        p = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
        tile = (first + p // SIZE).to(tl.int64)
        place = tl.load(column_of + tile, mask=p < width, other=0) * SIZE + p % SIZE
        place = tl.max_contiguous(tl.multiple_of(place, RUN), RUN)
        start = tl.program_id(2) * tokens_each
        stop = tl.minimum(start + tokens_each, tokens)
        sums = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
        for begin in range(start, stop, BLOCK_T):
            t = (begin + tl.arange(0, BLOCK_T)).to(tl.int64)
            mask = (n < SIZE)[:, None] & (t < stop)[None, :]
            grads = tl.load(grad + t[None, :] * grad_width + line * SIZE + n[:, None], mask=mask, other=0.0)
            mask = (t < stop)[:, None] & (p < width)[None, :]
            inputs = tl.load(x + t[:, None] * x_width + place[None, :], mask=mask, other=0.0)
            sums = tl.dot(grads, inputs, sums, input_precision=PRECISION)
        inside = tl.program_id(2).to(tl.int64) * num_entries + tile * (SIZE * SIZE) + p % SIZE
        mask = (n < SIZE)[:, None] & (p < width)[None, :]
        tl.store(out + inside[None, :] + n[:, None] * SIZE, sums.to(out.dtype.element_ty), mask=mask)
