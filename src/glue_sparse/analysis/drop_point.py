"""Where a curve of scores over sparsity begins to fall: a computed number with its uncertainty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np

RESAMPLES = 2000
Verdict = Literal["found", "not crossed", "undetermined"]


@dataclass(frozen=True)
class Curve:
    """Scores of one method on one task.

    Attributes:
        sparsities: ascending, the first is 0: the dense model.
        scores: [sparsities, seeds], in points of a hundred.
        left_out: sparsities that some of the seeds lack.
    """

    sparsities: tuple[float, ...]
    scores: np.ndarray
    left_out: tuple[float, ...] = ()

    @classmethod
    def of(cls, points: Mapping[float, Mapping[int, float]]) -> "Curve":
        """A curve from sparsity -> seed -> score, over the dense model's seeds that any other point has.

        A sparsity that lacks one of these seeds is left out, since its mean would be of other runs.

        Raises:
            ValueError: no dense point (sparsity 0), or no other with all of these seeds.
        """
        tried = {seed for sparsity, found in points.items() if sparsity for seed in found}
        seeds = sorted(points.get(0.0, {}).keys() & tried)
        sparsities = tuple(sorted(sparsity for sparsity, found in points.items() if set(seeds) <= found.keys()))
        if not seeds or len(sparsities) < 2:
            raise ValueError("a curve needs runs at sparsity 0, and with the same seeds at one other sparsity at least")
        scores = np.array([[points[sparsity][seed] for seed in seeds] for sparsity in sparsities])
        left_out = tuple(sorted(sparsity for sparsity, found in points.items() if found and sparsity not in sparsities))
        return cls(sparsities, scores, left_out)

    @property
    def num_seeds(self) -> int:
        return self.scores.shape[1]

    @property
    def mean(self) -> np.ndarray:
        """[sparsities] mean over seeds."""
        return self.scores.mean(axis=1)

    @property
    def std(self) -> np.ndarray:
        """[sparsities] sample standard deviation over seeds; NaN for a single one."""
        one = np.full(len(self.sparsities), nan)
        return self.scores.std(axis=1, ddof=1) if self.num_seeds > 1 else one


@dataclass(frozen=True)
class DropPoint:
    """The essential sparsity of a curve (Jaiswal et al., 2023, section 3), which the paper reads off plots.

    Attributes:
        threshold: score that counts as dropped: the dense mean minus eps.
        crossing: sparsity at which the mean first falls below it, between two points by a straight line; none if never.
        on_grid: largest sparsity of the grid up to which no point is below.
        interval: 2.5 and 97.5 % of the crossing when seeds are drawn with replacement; its upper end is none where
            at least that share of the draws never crosses. With 3 seeds or fewer this is the range of the single seeds.
            None for one seed.
        knee: sparsity at which the curve bends most, for which eps is not needed; none where it does not fall by more
            than the dense seeds differ.
        verdict: `found`, `not crossed`, or `undetermined`: dense seeds differ by more than eps, there is only one, or
            sparsities are left out.
    """

    threshold: float
    crossing: float | None
    on_grid: float
    interval: tuple[float, float | None] | None
    knee: float | None
    verdict: Verdict


def drop_point(curve: Curve, eps: float = 1.0, *, relative: bool = False, seed: int = 0) -> DropPoint:
    """Where `curve` drops by more than `eps`, and how sure that is.

    Args:
        eps: points of a hundred, or percent of the dense score where `relative`.
        seed: of the bootstrap over seeds. A draw takes all points of a seed together, since they share head and order.
    Raises:
        ValueError: eps that is not above 0.
    """
    check_eps(eps)
    mean, spread = curve.mean, curve.std[0]
    threshold = _threshold(mean[0], eps, relative)
    allowed = mean[0] - threshold
    crossing = first_crossing(curve.sparsities, mean, threshold)
    undetermined = np.isnan(spread) or spread > allowed or bool(curve.left_out)
    falls = mean[0] - mean[-1] > np.nan_to_num(spread)
    return DropPoint(
        threshold=threshold,
        crossing=crossing,
        on_grid=_on_grid(curve.sparsities, mean, threshold),
        interval=_interval(curve, eps, relative, seed),
        knee=knee(curve.sparsities, mean) if falls else None,
        verdict="undetermined" if undetermined else "not crossed" if crossing is None else "found",
    )


def check_eps(eps: float) -> None:
    """Raise a ValueError for an eps that is not above 0."""
    if not eps > 0:
        raise ValueError(f"eps must be above 0, got {eps}")


def _threshold(dense: float, eps: float, relative: bool) -> float:
    return float(dense * (1 - eps / 100) if relative else dense - eps)


def first_crossing(sparsities: Sequence[float], scores: np.ndarray, threshold: float) -> float | None:
    """The sparsity at which straight lines between the points first fall below the threshold; none if never."""
    below = np.flatnonzero(scores < threshold)
    if not len(below):
        return None
    after = int(below[0])
    if after == 0:
        return 0.0
    x0, x1 = sparsities[after - 1], sparsities[after]
    y0, y1 = scores[after - 1], scores[after]
    return float(x0 + (x1 - x0) * (y0 - threshold) / (y0 - y1))


def _on_grid(sparsities: Sequence[float], scores: np.ndarray, threshold: float) -> float:
    below = np.flatnonzero(scores < threshold)
    return sparsities[max(0, int(below[0]) - 1)] if len(below) else sparsities[-1]


def bracket(curve: Curve, eps: float = 1.0, *, relative: bool = False) -> tuple[float, float] | None:
    """The two neighbouring sparsities between which the mean first drops; none where it does not, or noise hides it."""
    mean, spread = curve.mean, curve.std[0]
    threshold = _threshold(mean[0], eps, relative)
    below = np.flatnonzero(mean < threshold)
    if not len(below) or spread > mean[0] - threshold:
        return None
    after = int(below[0])
    return curve.sparsities[after - 1], curve.sparsities[after]


def _interval(curve: Curve, eps: float, relative: bool, seed: int) -> tuple[float, float | None] | None:
    if curve.num_seeds < 2:
        return None
    draws = np.random.default_rng(seed).integers(curve.num_seeds, size=(RESAMPLES, curve.num_seeds))
    crossings = []
    for draw in draws:
        mean = curve.scores[:, draw].mean(axis=1)
        found = first_crossing(curve.sparsities, mean, _threshold(mean[0], eps, relative))
        crossings.append(np.inf if found is None else found)
    low, high = np.quantile(crossings, [0.025, 0.975], method="nearest")
    return (float(low) if np.isfinite(low) else curve.sparsities[-1], float(high) if np.isfinite(high) else None)


def knee(sparsities: Sequence[float], scores: np.ndarray) -> float | None:
    """The point farthest above the straight line from the first to the last (Kneedle: Satopaa et al., 2011).

    None where the curve does not end below its start, or never rises above that line by more than rounding.
    """
    x, y = np.asarray(sparsities), np.asarray(scores)
    if y[-1] >= y[0]:
        return None
    line = y[0] + (y[-1] - y[0]) * (x - x[0]) / (x[-1] - x[0])
    best = int(np.argmax(y - line))
    return float(x[best]) if y[best] - line[best] > 1e-9 * abs(y).max() else None
