"""The kernel of products of dense matrices at some entries alone."""

import triton
import triton.language as tl


@triton.jit
def sampled_product(
    grad, x, out, starts, columns, num_entries, num_rows, tokens, stride, tokens_each,
    STEPS: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """out[part, e] = sum over the part's tokens t of grad[row of e, t] * x[column of e, t].

    One program for a block of entries and a part of the tokens. Entries that follow each other lie in few rows, so that
    rows of `grad` come from a cache, and the tokens of one row lie side by side. [BLOCK_E, BLOCK_T] sums are added up
    once, at the end.
    """
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    is_in = e < num_entries
    low = tl.zeros((BLOCK_E,), dtype=tl.int32)
    high = low + num_rows
    for _ in range(STEPS):  # starts[low] <= e < starts[high]
        middle = (low + high) // 2
        is_below = tl.load(starts + middle) <= e
        low = tl.where(is_below, middle, low)
        high = tl.where(is_below, high, middle)
    column = tl.load(columns + e, mask=is_in, other=0)
    grads = grad + low.to(tl.int64)[:, None] * stride
    inputs = x + column.to(tl.int64)[:, None] * stride
    start = tl.program_id(1) * tokens_each
    stop = tl.minimum(start + tokens_each, tokens)
    sums = tl.zeros((BLOCK_E, BLOCK_T), dtype=tl.float32)
    for first in range(start, stop, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        mask = is_in[:, None] & (t < stop)[None, :]
        g = tl.load(grads + t[None, :], mask=mask, other=0.0).to(tl.float32)
        sums += g * tl.load(inputs + t[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(out + tl.program_id(1).to(tl.int64) * num_entries + e, tl.sum(sums, 1), mask=is_in)
