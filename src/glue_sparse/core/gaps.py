"""Sorted positions as gaps in a Rice code, near the entropy of a random mask; NumPy alone, so that it loads no torch.

Rice (1979), the Golomb code (1966) whose divisor is a power of two: of each gap g the `low_bits` low bits as they are,
and g >> low_bits in unary. For gaps of random positions it is within a hundredth of the entropy. The low bits lie in
bit planes of their own, so that all entries are decoded at once.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int32] | NDArray[np.int64]
_MOST_LOW_BITS = 32
_INT32 = 1 << 31
_PIECE = 1 << 16
"""Entries or bits that are decoded together: what they need stays in the caches, and is not asked for anew."""


def encode(positions: Positions) -> tuple[Bytes, int]:
    """The code of [k] ascending flat positions, each there once, and its `low_bits`.

    Returns:
        (bytes, low_bits): `low_bits` planes of ceil(k / 8) bytes, highest bits first; then, for each entry, as many
        zeros as its gap >> low_bits and a one. Bits fill bytes from the lowest up. No entry, no byte.
    """
    gaps = np.diff(positions.astype(np.int64), prepend=-1) - 1
    if not len(gaps):
        return np.zeros(0, np.uint8), 0
    low_bits, zeros = 0, int(gaps.sum())
    # what all takes is convex in low_bits: a bit more for each entry, about half of the zeros less
    while low_bits < _MOST_LOW_BITS and zeros - (fewer := int((gaps >> low_bits + 1).sum())) > len(gaps):
        low_bits, zeros = low_bits + 1, fewer
    planes = [np.packbits((gaps >> bit & 1).astype(bool), bitorder="little") for bit in reversed(range(low_bits))]
    ends = np.cumsum((gaps >> low_bits) + 1)
    unary = np.zeros(int(ends[-1]), bool)
    unary[ends - 1] = True
    return np.concatenate([*planes, np.packbits(unary, bitorder="little")]), low_bits


def decode(code: Bytes, count: int, low_bits: int) -> Positions:
    """The [k] positions, int32 where the largest that such a code can say fits, else int64.

    Raises:
        ValueError: these bytes are no code of `count` positions.
    """
    plane = -(-count // 8)
    if not 0 <= low_bits <= _MOST_LOW_BITS or low_bits * plane > len(code) or count > 8 * len(code):
        raise ValueError(f"{len(code)} bytes are no code of {count} positions")
    planes, unary = code[: low_bits * plane].reshape(low_bits, plane), code[low_bits * plane :]
    dtype: Any = np.int32 if 8 * len(unary) << low_bits <= _INT32 else np.int64
    found: Positions = np.empty(count, dtype)
    last = _ends(unary, found)
    if last is None or len(unary) != last // 8 + 1:
        raise ValueError(f"{len(code)} bytes are no code of {count} positions")
    if count % 8 and (planes[:, -1:] >> count % 8).any():
        raise ValueError("bits are set that belong to no position")
    before = 0
    for begin in range(0, count if low_bits else 0, _PIECE):
        piece = found[begin : begin + _PIECE]
        lows = np.cumsum(_low(planes[:, begin // 8 : (begin + _PIECE) // 8], len(piece)), dtype=found.dtype)
        lows += before
        before = lows[-1]
        # of entry i: (zeros before its one << low_bits) + low bits up to it + i, where these zeros are its end - i
        piece <<= low_bits
        piece += lows
        piece -= np.arange(begin, begin + len(piece), dtype=found.dtype) * found.dtype.type((1 << low_bits) - 1)
    return found


def _ends(unary: Bytes, found: Positions) -> int | None:
    """Write where the ones are, and give where the last is, -1 for none; None where there are more or fewer of them."""
    filled = 0
    for begin in range(0, len(unary), _PIECE // 8):
        ones = np.flatnonzero(np.unpackbits(unary[begin : begin + _PIECE // 8], bitorder="little").view(bool))
        if filled + len(ones) > len(found):
            return None
        np.add(ones, 8 * begin, out=found[filled : filled + len(ones)], casting="same_kind")
        filled += len(ones)
    return None if filled < len(found) else int(found[-1]) if filled else -1


def _low(planes: Bytes, count: int) -> NDArray[Any]:
    """The low bits of each gap, eight planes at a time: doubling bytes is several times as fast as shifting words."""
    found: NDArray[Any] = np.zeros(count, np.uint8)
    for begin, end in pairwise([0, *range(len(planes) % 8 or 8, len(planes), 8), len(planes)]):
        part = np.zeros(count, np.uint8)
        for plane in planes[begin:end]:
            part += part
            part |= np.unpackbits(plane, count=count, bitorder="little")
        found = found.astype(np.int64) << 8 | part if begin else part
    return found
