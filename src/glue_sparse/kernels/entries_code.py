"""Kernels that write entries of a tensor, and read them."""

import triton
import triton.language as tl


@triton.jit
def _put(weight, indices, values, count, BLOCK: tl.constexpr):
    """One block of [count] values, in the weight's type, at flat indices."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_in = i < count
    places = tl.load(indices + i, mask=is_in, other=0).to(tl.int64)
    found = tl.load(values + i, mask=is_in, other=0.0)
    tl.store(weight + places, found.to(weight.dtype.element_ty), mask=is_in)


@triton.jit
def write(weight, indices, values, count, BLOCK: tl.constexpr):
    """weight[indices] = values."""
    _put(weight, indices, values, count, BLOCK)


@triton.jit
def write_all(table, count, WEIGHT: tl.constexpr, INDEX: tl.constexpr, VALUE: tl.constexpr, BLOCK: tl.constexpr):
    """The same for many tensors: one column each of a [4, count] int64 table of three addresses and a length."""
    one = table + tl.program_id(1)
    length = tl.load(one + 3 * count)
    if tl.program_id(0).to(tl.int64) * BLOCK < length:
        weight = tl.load(one).to(tl.pointer_type(WEIGHT))  # pyright: ignore[reportArgumentType]
        indices = tl.load(one + count).to(tl.pointer_type(INDEX))  # pyright: ignore[reportArgumentType]
        values = tl.load(one + 2 * count).to(tl.pointer_type(VALUE))  # pyright: ignore[reportArgumentType]
        _put(weight, indices, values, length, BLOCK)


@triton.jit
def read(tensor, indices, out, count, BLOCK: tl.constexpr):
    """out = tensor[indices], in the type of `out`."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_in = i < count
    places = tl.load(indices + i, mask=is_in, other=0).to(tl.int64)
    found = tl.load(tensor + places, mask=is_in, other=0.0)
    tl.store(out + i, found.to(out.dtype.element_ty), mask=is_in)
