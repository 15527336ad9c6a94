"""The random numbers of gates: a function of (keys, position), so that any piece of a tensor's can be made alone."""

import torch
from torch import Tensor

from glue_sparse.core.randomness import seed_of

VERSION = 2
"""Of the numbers, which files of gates name: 1 were those of a torch.Generator, a tensor's in one sequence."""

_WEYL, _FIRST, _SECOND = 0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35
"""2^32 over the golden ratio, as in SplitMix; the multipliers of MurmurHash3's last steps."""


class Noise:
    """Uniform numbers of one tensor, made anew wherever they are needed instead of being kept.

    With the keys k0 and k1 (the lower and the upper 32 bits of a seed) the number at the flat position p is, in 32-bit
    integers that wrap around and shifts that fill with zeros,

        x = k0 + 0x9e3779b9 p                         a Weyl sequence (SplitMix: Steele, Lea and Flood, 2014)
        x = k1 + 0x85ebca6b (x ^ (x >> 16))           the last steps of MurmurHash3 (Appleby), k1 between them
        x = 0xc2b2ae35 (x ^ (x >> 13))
        u = 1/2 + 2^-32 x, x read as signed           rounded to float32 twice: x, and the sum

    MurmurHash3's very last step is left out: it changes the lower 16 bits alone, and u by less than 2^-16. Products of
    integers and IEEE sums are the same on every device, and so are these numbers. Gates need numbers that are uniform,
    and independent between neighbours, steps and tensors, as far as statistics can tell: tests/methods/gates/
    test_noise.py. They need no secrets, and no more than 2^32 numbers of a tensor.

    Args:
        seed: of the draw; the keys are its digest with `keys`.
        keys: what the numbers are for: kind of gates, step, name.
        longest: most numbers that are asked for at a time.
    """

    def __init__(self, seed: int, *keys: str | int, longest: int, device: torch.device):
        self._first, second = keys_of(seed, *keys)
        self._second = torch.tensor(second, dtype=torch.int32, device=device)
        self._half = torch.tensor(0.5, device=device)
        self._steps = torch.arange(longest, dtype=torch.int32, device=device).mul_(_signed(_WEYL))

    def __call__(self, start: int, count: int) -> Tensor:
        """[count] numbers at the flat positions from `start` on, float32 in [0, 1]."""
        x = self._steps[:count] + _signed(self._first + _WEYL * start)
        torch.add(self._second, _fold(x, 16), alpha=_signed(_FIRST), out=x)
        u = _fold(x, 13).mul_(_signed(_SECOND)).float()
        return torch.add(self._half, u, alpha=2.0**-32, out=u)


def keys_of(seed: int, *keys: str | int) -> tuple[int, int]:
    """k0 and k1 of `Noise`, read as signed."""
    both = seed_of(seed, *keys)
    return _signed(both), _signed(both >> 32)


def uniform(places: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The numbers of `Noise` at flat positions [n] int32, by the plain formula: for compilers, which fuse its steps."""
    x = places * _signed(_WEYL) + first
    x = second + _signed(_FIRST) * (x ^ ((x >> 16) & 0xFFFF))
    x = _signed(_SECOND) * (x ^ ((x >> 13) & 0x7FFFF))
    return 0.5 + x.float() * 2.0**-32


def _fold(x: Tensor, bits: int) -> Tensor:
    """x ^ (x >> bits) in place; torch's shift repeats the sign, so that it is masked away."""
    return x.bitwise_xor_((x >> bits).bitwise_and_((1 << (32 - bits)) - 1))


def _signed(number: int) -> int:
    """The 32-bit integer that has the last 32 bits of a number."""
    return ((number + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
