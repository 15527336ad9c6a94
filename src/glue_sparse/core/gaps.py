"""Sorted positions as gaps in a Rice code, near the entropy of a random mask; NumPy alone, so that it loads no torch.

Rice (1979), the Golomb code (1966) whose divisor is a power of two: of each gap g the `low_bits` low bits as they are,
and g >> low_bits in unary. For gaps of random positions it is within a hundredth of the entropy. The low bits lie in
bit planes of their own, so that all entries are decoded at once.
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int32] | NDArray[np.int64]
_MOST_LOW_BITS = 32
_INT32 = 1 << 31


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
    unary = np.unpackbits(code[low_bits * plane :], bitorder="little").view(bool)
    ends = np.flatnonzero(unary)
    if len(ends) != count or len(unary) > 8 * (-(-(ends[-1] + 1) // 8) if count else 0):
        raise ValueError(f"{len(code)} bytes are no code of {count} positions")
    if not count:
        return np.zeros(0, np.int32)
    if count % 8 and (code[plane - 1 : low_bits * plane : plane] >> count % 8).any():
        raise ValueError("bits are set that belong to no position")
    fits = (int(ends[-1]) + 1) << low_bits <= _INT32
    found: Positions = ends.astype(np.int32) if fits else ends.astype(np.int64)
    numbers = np.arange(count, dtype=found.dtype)
    found -= numbers  # the zeros before each one
    found <<= low_bits
    found += numbers
    if low_bits:
        found += np.cumsum(_low(code, count, low_bits, plane), dtype=found.dtype)
    return found


def _low(code: Bytes, count: int, low_bits: int, plane: int) -> NDArray[np.unsignedinteger]:
    """The low bits of each gap, plane by plane; doubling is several times as fast as shifting."""
    low = np.zeros(count, np.uint8 if low_bits <= 8 else np.uint16 if low_bits <= 16 else np.uint32)
    for index in range(low_bits):
        low += low
        low |= np.unpackbits(code[index * plane : (index + 1) * plane], count=count, bitorder="little")
    return low
