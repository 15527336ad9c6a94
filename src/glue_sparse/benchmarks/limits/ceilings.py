"""What a device reaches at best, by trying: bytes a second that a copy moves, operations a second of a product."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from glue_sparse.benchmarks.bank_ways import timed

_COPIED = {"cpu": 1 << 26, "cuda": 1 << 28}
"""Numbers in a copy; more than caches hold."""
_SIDES = {("cpu", torch.float32): 1024, ("cpu", torch.bfloat16): 256, ("cuda", torch.float32): 4096,
          ("cuda", torch.bfloat16): 8192}  # fmt: skip
"""Device and type -> side of the square matrices that are multiplied; few processors are fast in bfloat16."""
_SMALL = 256
"""Side of the matrices where it is only to work."""
_QUICK = 16
"""How many times smaller a copy is that only has to work."""


class Ceilings(NamedTuple):
    """What bounds every path.

    Attributes:
        copy: bytes a second, read and written ones together.
        products: name of a type -> operations a second, where a multiplication and an addition are two.
    """

    copy: float
    products: dict[str, float]

    def best(self, other: "Ceilings") -> "Ceilings":
        """The higher ones of both: whatever else is at work only lowers what is measured."""
        products = {name: max(rate, other.products[name]) for name, rate in self.products.items()}
        return Ceilings(max(self.copy, other.copy), products)


class Trial(NamedTuple):
    """What is tried once: its name, how many bytes it moves or operations it does, and the call."""

    name: str
    amount: float
    call: Callable[[], object]


def trials(device: torch.device, quick: bool = False) -> list[Trial]:
    """A copy, and a product in each type.

    Args:
        quick: small sizes, which caches may hold: they only show that it works.
    """
    return [copy(device, quick), *(product(device, dtype, quick) for dtype in (torch.float32, torch.bfloat16))]


def measured(tried: Sequence[Trial], repeats: int = 5) -> Ceilings:
    """The best of a few each, in turns, after a first one."""
    seconds = [[timed(one.call).clock for one in tried] for _ in range(repeats + 1)]
    return of(tried, [min(times[1:]) for times in zip(*seconds, strict=True)])


def of(tried: Sequence[Trial], seconds: Sequence[float]) -> Ceilings:
    """From the seconds of each."""
    rates = {one.name: one.amount / took for one, took in zip(tried, seconds, strict=True)}
    return Ceilings(rates.pop("copy"), rates)


def copy(device: torch.device, quick: bool = False) -> Trial:
    """Reads and writes more than caches hold, unless `quick`."""
    source = torch.ones(_COPIED.get(device.type, _COPIED["cpu"]) // (_QUICK if quick else 1), device=device)
    target = torch.empty_like(source)
    return Trial("copy", 2 * source.nbytes, lambda: target.copy_(source))


def product(device: torch.device, dtype: torch.dtype, quick: bool = False) -> Trial:
    """Of two square matrices of side n: 2 n^3 operations."""
    side = min(_SIDES.get((device.type, dtype), _SMALL), _SMALL if quick else 1 << 20)
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    out = torch.empty_like(matrix)
    return Trial(str(dtype)[6:], 2 * side**3, lambda: torch.mm(matrix, matrix, out=out))


def copy_rate(device: torch.device, repeats: int = 20) -> float:
    """Bytes a second that a copy reads and writes, of more than caches hold; the best of `repeats`."""
    tried = copy(device)
    return tried.amount / min(timed(tried.call).clock for _ in range(repeats))
