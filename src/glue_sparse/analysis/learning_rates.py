"""Learning rates of sparse pre-training: the rule over sparsity, and the fits behind it; needs numbers only.

Dietrich et al. (2021, arXiv 2108.06277), equations 3, 8 and 9: the best learning rate of a sweep is where a cubic in
its logarithm is lowest; its logarithm is a quadratic in sparsity, and linear in the logarithm of the model's size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

QUADRATIC, LINEAR = 1.969, 0.2905
"""Of equation 3."""
LEAST_RATES = 4
"""A cubic has four coefficients."""
LEAST_STEP = 1.05
"""Rates that are closer than this factor count as one: through their noise, a cubic dives between the others."""


def factor(sparsity: float) -> float:
    """How much larger the best learning rate of a sparse model is than that of the dense one (equation 3).

    exp(1.969 s^2 + 0.2905 s), which the authors fitted to BERT-Medium with static masks up to s = 0.9.

    Raises:
        ValueError: a sparsity outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"a sparsity is in [0, 1), got {sparsity}")
    return float(np.exp(QUADRATIC * sparsity**2 + LINEAR * sparsity))


@dataclass(frozen=True)
class Optimum:
    """Where a cubic through the losses of a sweep is lowest.

    Attributes:
        rate: the best learning rate.
        loss: of the cubic there.
        inside: whether it lies between the rates that were tried; else it is a guess.
        cubic: coefficients over log(rate), highest power first.
    """

    rate: float
    loss: float
    inside: bool
    cubic: tuple[float, ...]


def num_different(rates: Sequence[float]) -> int:
    """How many rates there are, those closer than `LEAST_STEP` counted as one."""
    ordered = np.sort(np.asarray(rates, dtype=float))
    return 1 + int((ordered[1:] / ordered[:-1] >= LEAST_STEP).sum())


def optimum(rates: Sequence[float], losses: Sequence[float]) -> Optimum:
    """The minimum of a cubic in log(rate), fitted to losses by least squares (figures 12 and 13 of the paper).

    Args:
        rates, losses: of the runs, in any order; a rate may have several.
    Raises:
        ValueError: fewer than four different rates, or a cubic without a minimum in or near their range, that is,
            farther from it than it is wide.
    """
    if (count := num_different(rates)) < LEAST_RATES:
        raise ValueError(f"a cubic needs {LEAST_RATES} learning rates at least, got {count} that differ enough")
    x = np.log(np.asarray(rates, dtype=float))
    cubic = np.polyfit(x, np.asarray(losses, dtype=float), 3)
    slope = np.polyder(cubic)
    flat = [float(root.real) for root in np.roots(slope) if np.isreal(root)]
    near = 2 * x.min() - x.max(), 2 * x.max() - x.min()
    lowest = [root for root in flat if np.polyval(np.polyder(slope), root) > 0 and near[0] <= root <= near[1]]
    if not lowest:
        raise ValueError("the losses of this sweep have no minimum: try smaller and larger learning rates")
    best = lowest[0]
    inside = bool(x.min() <= best <= x.max())
    return Optimum(float(np.exp(best)), float(np.polyval(cubic, best)), inside, tuple(map(float, cubic)))


def over_sparsity(rates: Mapping[float, float]) -> tuple[float, float, float]:
    """(a, b, c) of log(rate) = a s^2 + b s + c (equation 8), from sparsity -> best rate.

    Raises:
        ValueError: fewer than three sparsities.
    """
    if len(rates) < 3:
        raise ValueError(f"a quadratic over sparsity needs three sparsities at least, got {len(rates)}")
    a, b, c = np.polyfit(list(rates), np.log(list(rates.values())), 2)
    return float(a), float(b), float(c)


def over_size(rates: Mapping[float, float]) -> tuple[float, float]:
    """(a, b) of log(rate) = a log(N) + b (equation 9), from N -> best rate.

    Args:
        rates: N is the number of active linear weights of the encoder.
    Raises:
        ValueError: fewer than two sizes.
    """
    if len(rates) < 2:
        raise ValueError(f"a line over sizes needs two sizes at least, got {len(rates)}")
    a, b = np.polyfit(np.log(list(rates)), np.log(list(rates.values())), 1)
    return float(a), float(b)
