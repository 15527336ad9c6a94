"""When entries move and how many, by hand-worked examples and counted step by step."""

import itertools
from typing import Any

import pytest

from glue_sparse.methods.schedules import Schedule


def updates(schedule: Schedule, num_steps: int) -> list[int]:
    return [step for step in range(num_steps) if schedule.is_update(step)]


def test_steps_and_fractions_of_a_run():
    assert updates(Schedule(every=100, until=750).in_steps(1000), 1000) == [100, 200, 300, 400, 500, 600, 700]
    assert Schedule(every=0.1, until=0.75).in_steps(1000) == Schedule(every=100, until=750)
    assert updates(Schedule(every=0.1, until=0.5).in_steps(200), 200) == [20, 40, 60, 80]
    assert updates(Schedule(every=0.1, until=30).in_steps(100), 100) == [10, 20]  # none at step 30 itself
    assert updates(Schedule(every=2, until=5000).in_steps(8), 9)[:3] == [2, 4, 6]  # the run ends before
    assert Schedule(every=0.001).in_steps(50).every == 1  # at least one step
    assert Schedule(until=1).in_steps(1000).until == Schedule(until=1.0).in_steps(1000).until  # the whole run
    assert updates(Schedule(every=1, until=4).in_steps(100), 100) == [1, 2, 3]  # never step 0


def test_what_does_not_depend_on_the_run_stays():
    schedule = Schedule(every=0.1, drop_fraction=0.7, decay="linear").in_steps(100)
    assert (schedule.drop_fraction, schedule.decay) == (0.7, "linear")
    assert schedule.in_steps(100) == schedule


@pytest.mark.parametrize(("every", "num_steps"), [(3, 10), (1, 2), (1, 1), (0.5, 3)])
def test_no_update_at_the_last_step(every: float, num_steps: int):
    schedule = Schedule(every=every, until=1.0).in_steps(num_steps)
    assert schedule.num_updates == len(updates(schedule, num_steps))
    assert not schedule.is_update(num_steps - 1)


@pytest.mark.parametrize(
    ("decay", "start", "quarter", "half", "end"),
    [
        ("cosine", 0.4, 0.2 * (1 + 0.5**0.5), 0.2, 0.0),  # 0.4 / 2 * (1 + cos(pi * step / 80))
        ("linear", 0.4, 0.3, 0.2, 0.0),
        ("constant", 0.4, 0.4, 0.4, 0.4),
    ],
)
def test_decay(decay: Any, start: float, quarter: float, half: float, end: float):
    schedule = Schedule(every=10, until=80, drop_fraction=0.4, decay=decay)
    found = [schedule.fraction(step) for step in (0, 20, 40, 80, 200)]
    assert found == pytest.approx([start, quarter, half, end, end], abs=1e-12)


def test_cosine_of_a_fraction_of_the_run():
    # until 0.75 of 400 steps: half of it is step 150
    schedule = Schedule(until=0.75, drop_fraction=0.3).in_steps(400)
    assert schedule.fraction(150) == pytest.approx(0.15)
    assert schedule.fraction(100) == pytest.approx(0.3 * 0.75)  # cos(pi / 3) = 1/2


def test_number_of_updates_equals_a_count_over_steps():
    found = set()
    for every, until, num_steps in itertools.product(
        (1, 2, 3, 7, 100, 0.01, 0.04, 0.1, 0.3, 0.5, 0.9), (2, 3, 6, 7, 50, 0.1, 0.3, 0.75, 1.0), range(2, 60)
    ):
        steps = every if every >= 1 else max(1, round(every * num_steps))
        end = until if until > 1 else round(until * num_steps)
        expected, step = [], steps
        while step < min(end, num_steps - 1):  # none at the last step, after which nothing can learn
            expected.append(step)
            step += steps
        schedule = Schedule(every=every, until=until).in_steps(num_steps)
        assert updates(schedule, num_steps) == expected
        assert schedule.num_updates == len(updates(schedule, num_steps))
        found.add(schedule.num_updates)
    assert {0, 1, 2, 10, 40} <= found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_fraction": -0.1}, r"^`drop_fraction` must be in \[0, 1\], got -0.1$"),
        ({"drop_fraction": 1.1}, r"^`drop_fraction` must be in \[0, 1\], got 1.1$"),
        ({"drop_fraction": float("nan")}, r"^`drop_fraction` must be in \[0, 1\], got nan$"),
        ({"every": 0}, "^`update_every` is a number of steps, a fraction of the run below 1, or epoch; not 0$"),
        ({"every": 1e300}, "^`update_every` .*; not 1e.300$"),
        ({"every": -5}, "^`update_every` .*; not -5$"),
        ({"every": 2.5}, "^`update_every` .*; not 2.5$"),
        ({"until": 0}, "^`update_until` is a step, or a fraction of the run up to 1; not 0$"),
        ({"until": -0.5}, "^`update_until` .*; not -0.5$"),
        ({"decay": "exponential"}, "^unknown schedule 'exponential'; there are constant, cosine, linear$"),
    ],
)
def test_bad_schedules(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Schedule(**changes)


@pytest.mark.parametrize("drop_fraction", [0, 1])
def test_the_ends_of_the_range_are_allowed(drop_fraction: float):
    assert Schedule(drop_fraction=drop_fraction, every=1).fraction(0) == drop_fraction
