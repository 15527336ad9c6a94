"""Passes over gates as one loop each, which torch.compile writes; the same noise, to the bit, and gates up to rounding.

Compiling takes some ten seconds and a C++ compiler, so that only large tensors of runs that have gone on for a while
are done so. Whether one is follows from its size and the step, so that a run that was stopped goes on with the same
bits. Where nothing can be compiled, gates are worked on piece by piece throughout.
"""

import logging
import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple, Self

import torch
from torch import Tensor

from glue_sparse.methods.gates.hard_concrete import HardConcrete
from glue_sparse.methods.gates.noise import Noise, keys_of, uniform

logger = logging.getLogger(__name__)

FIRST_STEP, LEAST_GATES = 50, 1 << 16
_LONGEST_ROW, _LEAST_ROW, _ROWS = 1 << 12, 1 << 6, 1 << 14
"""Entries, and sums of them, that one thread adds up: so that sums do not depend on how many threads there are."""


class Keys(NamedTuple):
    """Of the noise, [] int32 each; see `noise.uniform`."""

    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, seed: int, *keys: str | int) -> Self:
        """Those of `Noise` with these arguments."""
        return cls(*torch.tensor(keys_of(seed, *keys), dtype=torch.int32))


class Passes(NamedTuple):
    """Compiled functions of tensors [rows, columns] of one size; see `in_rows`.

    Attributes:
        forward: (d, alpha, w0, keys, group's gate or None) to w0 + z * z_group * d.
        backward: (gradient, d, alpha, keys, group's gate or None) to the gradients of d and alpha, and the sums by
            rows that the group's gate needs.
        count: alpha to the sums by rows of P(z > 0).
        count_backward: (alpha, factor) to the gradient of factor times that.
    """

    forward: Callable[..., Tensor]
    backward: Callable[..., tuple[Tensor, Tensor, Tensor]]
    count: Callable[[Tensor], Tensor]
    count_backward: Callable[[Tensor, Tensor], Tensor]


def passes(concrete: HardConcrete, diff: Tensor, draw: tuple[int, int] | None) -> Passes | None:
    """The passes for one tensor's gates at this step; none where it is worked on piece by piece."""
    is_suitable = diff.numel() >= LEAST_GATES and _columns(diff) >= _LEAST_ROW
    if draw is None or draw[1] < FIRST_STEP or not is_suitable or diff.device.type != "cpu":
        return None
    return None if torch.compiler.is_compiling() else _compiled(concrete)


def added(sums: Tensor) -> Tensor:
    """The sum of sums by rows, a float64 scalar."""
    return torch.stack([part.sum(dtype=torch.float64) for part in sums.split(_ROWS)]).sum()


def in_rows(*tensors: Tensor) -> list[Tensor]:
    """Contiguous tensors of one size as `Passes` take them: [rows, columns] of all entries in order."""
    return [tensor.reshape(-1, _columns(tensor)) for tensor in tensors]


def _columns(tensor: Tensor) -> int:
    return math.gcd(tensor.numel(), _LONGEST_ROW)


def _noise(concrete: HardConcrete, like: Tensor, keys: Keys) -> Tensor:
    rows, columns = like.shape
    first, place = (torch.arange(n, dtype=torch.int32, device=like.device) for n in (rows, columns))
    return concrete.logistic(uniform(first[:, None] * columns + place, *keys))


@cache
def _compiled(concrete: HardConcrete) -> Passes | None:
    """The passes of a distribution, tried on a small tensor; none, with a line in the log, where that fails."""

    def forward(d: Tensor, a: Tensor, base: Tensor, keys: Keys, z_group: Tensor | None) -> Tensor:
        z = concrete.gate(a, _noise(concrete, a, keys))
        change = (z if z_group is None else z * z_group) * d
        return (base + change).to(base.dtype)

    def backward(g: Tensor, d: Tensor, a: Tensor, keys: Keys, z_group: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        g = g.to(d.dtype)
        by_gate = g * d
        z, by_alpha = concrete.gate_and_gradient(a, by_gate, _noise(concrete, a, keys))
        if z_group is None:
            return g * z, by_alpha, by_alpha.new_zeros(0)
        return g * z_group * z, by_alpha * z_group, (by_gate * z).sum(1)

    def count(a: Tensor) -> Tensor:
        return concrete.open_probability(a).sum(1)

    def count_backward(a: Tensor, factor: Tensor) -> Tensor:
        return concrete.open_slope(a) * factor

    try:
        _check_noise()
        compiled = partial(torch.compile, dynamic=True)
        found = Passes(compiled(forward), compiled(backward), compiled(count), compiled(count_backward))
        sample, keys = torch.ones(16, 64), Keys(*torch.ones(2, dtype=torch.int32))
        found.backward(found.forward(sample, sample, sample, keys, None), sample, sample, keys, None)
        found.count_backward(sample, found.count(sample).sum())
        return found
    except Exception as error:  # whatever a compiler raises: the plain way is still there
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        logger.warning("gates are worked on piece by piece, which is slower: torch.compile failed (%s)", reason)
        return None


def _check_noise() -> None:
    """Raise a RuntimeError where compiled noise is not the one that is defined, to the bit."""
    noise = Noise(7, "check", longest=1003, device=torch.device("cpu"))
    places = torch.arange(1003, dtype=torch.int32)
    if not torch.equal(torch.compile(uniform, dynamic=True)(places, *Keys.of(7, "check")), noise(0, 1003)):
        raise RuntimeError("compiled noise has other bits")
