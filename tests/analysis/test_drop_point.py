"""Drop points on curves whose answer is known."""

from collections.abc import Sequence

import numpy as np
import pytest

from glue_sparse.analysis.drop_point import Curve, bracket, drop_point, knee

GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def curve(*seeds: Sequence[float], grid: tuple[float, ...] = GRID) -> Curve:
    return Curve(grid, np.array(seeds).T)


def test_a_monotone_curve_is_interpolated_and_read_on_the_grid():
    found = drop_point(curve([90, 90, 89.5, 88.5, 80, 60], [90.2, 90.2, 89.7, 88.7, 80.2, 60.2]))
    assert found.verdict == "found" and found.on_grid == 0.2
    assert found.crossing == pytest.approx(0.25)  # half way from 89.6 down to 88.6 lies 89.1
    assert found.threshold == pytest.approx(89.1)


def test_seeds_that_move_together_leave_no_doubt():
    found = drop_point(curve([90, 90, 89, 87, 80, 60], [80, 80, 79, 77, 70, 50]), eps=20)
    assert found.interval == pytest.approx((found.crossing, found.crossing))


def test_the_interval_spans_the_seeds():
    early, late = [90, 90, 87, 80, 70, 60], [90, 90, 90, 90, 87, 60]
    found = drop_point(curve(early, late))
    assert found.interval == pytest.approx((0.1 + 0.1 / 3, 0.3 + 0.1 / 3))
    assert found.interval is not None and found.crossing is not None
    assert found.interval[0] < found.crossing < found.interval[1]  # type: ignore[operator]


def test_the_first_crossing_counts_on_a_noisy_curve():
    found = drop_point(curve([90, 88, 90, 90, 80, 70], [90.1, 88.1, 90.1, 90.1, 80.1, 70.1]))
    assert found.crossing == pytest.approx(0.05) and found.on_grid == 0.0


def test_a_curve_that_never_drops():
    found = drop_point(curve([90, 91, 90, 91, 90, 89.5], [90, 91, 90, 91, 90, 89.6]))
    assert found.crossing is None and found.verdict == "not crossed" and found.on_grid == 0.5
    assert found.interval == (0.5, None)


def test_a_curve_that_drops_at_once():
    found = drop_point(curve([90, 50, 50, 50, 50, 50], [90, 50, 50, 50, 50, 50]))
    assert found.crossing == pytest.approx(0.1 / 40) and found.on_grid == 0.0


def test_noise_larger_than_eps_and_single_seeds_are_undetermined():
    wild = drop_point(curve([90, 90, 80, 70, 60, 50], [86, 86, 76, 66, 56, 46]))
    assert wild.verdict == "undetermined" and wild.crossing is not None
    single = drop_point(curve([90, 90, 80, 70, 60, 50]))
    assert single.verdict == "undetermined" and single.interval is None
    assert bracket(curve([90, 90, 80, 70, 60, 50], [86, 86, 76, 66, 56, 46])) is None
    assert bracket(curve([90, 90, 80, 70, 60, 50])) == (0.1, 0.2)


def test_relative_eps_is_percent_of_the_dense_score():
    absolute, relative = (drop_point(curve([50, 49.4, 48, 48, 48, 48]), relative=flag) for flag in (False, True))
    assert relative.threshold == pytest.approx(49.5) and absolute.threshold == 49
    assert relative.crossing is not None and absolute.crossing is not None and relative.crossing < absolute.crossing


def test_the_bootstrap_depends_on_the_seed_alone():
    noisy = curve(*(np.random.default_rng(0).normal(88, 1, (5, 6)).tolist()))
    assert drop_point(noisy, seed=3).interval == drop_point(noisy, seed=3).interval


def test_knee():
    assert knee(GRID, np.array([90, 90, 90, 90, 70, 50])) == 0.3
    assert knee(GRID, np.array([90, 80, 70, 60, 50, 40])) is None  # a straight line has none
    assert knee(GRID, np.array([50, 60, 70, 80, 85, 90])) is None
    for start, end in ((88.3, 61.7), (90.0, 40.0), (91.3, 12.9)):  # rounding is no knee
        assert knee(np.linspace(0, 0.9, 10).tolist(), np.linspace(start, end, 10)) is None
    flat = curve([90, 90.3, 89.9, 89.9, 89.9, 89.5], [92, 92.3, 91.9, 91.9, 91.9, 91.5])
    assert drop_point(flat).knee is None  # falls by less than the dense seeds differ


def test_points_without_all_seeds_are_left_out():
    found = Curve.of({0.0: {0: 90.0, 1: 91.0}, 0.2: {0: 80.0}, 0.4: {1: 71.0, 0: 70.0, 2: 99.0}})
    assert found.sparsities == (0.0, 0.4) and found.scores.tolist() == [[90, 91], [70, 71]]
    single = Curve.of({0.0: {0: 90.0, 1: 91.0}, 0.2: {0: 80.0}})
    assert single.scores.tolist() == [[90], [80]]  # the dense point of the same seed, not of both
    with pytest.raises(ValueError, match="sparsity 0"):
        Curve.of({0.1: {0: 90.0}, 0.2: {0: 80.0}})
    with pytest.raises(ValueError, match="same seeds"):
        Curve.of({0.0: {0: 90.0}, 0.2: {1: 80.0}})


@pytest.mark.parametrize("eps", [0.0, -1.0, float("nan")])
def test_a_bad_eps_is_refused(eps: float):
    with pytest.raises(ValueError, match="eps must be above 0"):
        drop_point(curve([90, 80, 70, 60, 50, 40]), eps)
