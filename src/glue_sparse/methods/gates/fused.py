"""Passes over gates as one loop each, which torch.compile writes; the same noise, to the bit, and gates up to rounding.

Compiling takes some ten seconds and a C++ compiler, so that only large tensors of runs that have gone on for a while
are done so. Whether one is follows from its size and the step, so that a run that was stopped goes on with the same
bits. Where nothing can be compiled, gates are worked on piece by piece throughout.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import NamedTuple, Self

import torch
from torch import Tensor

from glue_sparse.methods.gates.hard_concrete import HardConcrete
from glue_sparse.methods.gates.noise import Noise, keys_of, uniform

logger = logging.getLogger(__name__)

FIRST_STEP, LEAST_GATES = 50, 1 << 16


class Keys(NamedTuple):
    """Of the noise, [] int32 each; see `noise.uniform`."""

    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, seed: int, *keys: str | int) -> Self:
        """Those of `Noise` with these arguments."""
        return cls(*torch.tensor(keys_of(seed, *keys), dtype=torch.int32))


class Passes(NamedTuple):
    """Compiled functions of flat tensors of one size.

    Attributes:
        forward: (d, alpha, w0, keys, group's gate or None) to w0 + z * z_group * d.
        backward: (gradient, d, alpha, keys, group's gate or None) to the gradients of d and alpha, and the sum that
            the group's gate needs.
    """

    forward: Callable[..., Tensor]
    backward: Callable[..., tuple[Tensor, Tensor, Tensor]]


def passes(concrete: HardConcrete, diff: Tensor, draw: tuple[int, int] | None) -> Passes | None:
    """The passes for one tensor's gates at this step; none where it is worked on piece by piece."""
    if draw is None or draw[1] < FIRST_STEP or diff.numel() < LEAST_GATES or diff.device.type != "cpu":
        return None
    return None if torch.compiler.is_compiling() else _compiled(concrete)


def _noise(concrete: HardConcrete, like: Tensor, keys: Keys) -> Tensor:
    return concrete.logistic(uniform(torch.arange(len(like), dtype=torch.int32, device=like.device), *keys))


@cache
def _compiled(concrete: HardConcrete) -> Passes | None:
    """The passes of a distribution, tried on a small tensor; none, with a line in the log, where that fails."""

    def forward(d: Tensor, a: Tensor, base: Tensor, keys: Keys, z_group: Tensor | None) -> Tensor:
        z = concrete.gate(a, _noise(concrete, a, keys))
        change = (z if z_group is None else z * z_group) * d
        return (base + change).to(base.dtype)

    def backward(
        g: Tensor, d: Tensor, a: Tensor, keys: Keys, z_group: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        g = g.to(d.dtype)
        by_gate = g * d
        z, by_alpha = concrete.gate_and_gradient(a, by_gate, _noise(concrete, a, keys))
        if z_group is None:
            return g * z, by_alpha, by_alpha.new_zeros(())
        return g * z_group * z, by_alpha * z_group, (by_gate * z).sum(dtype=torch.float64)

    try:
        _check_noise()
        found = Passes(torch.compile(forward, dynamic=True), torch.compile(backward, dynamic=True))
        sample, keys = torch.ones(1000), Keys(*torch.ones(2, dtype=torch.int32))
        found.backward(found.forward(sample, sample, sample, keys, None), sample, sample, keys, None)
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
