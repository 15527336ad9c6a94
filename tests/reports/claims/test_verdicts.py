"""Verdicts against plain formulas, and how often they are right where the truth is planted."""

from collections import Counter
from collections.abc import Callable
from itertools import product
from math import log, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats

from entries import entry, scored
from glue_sparse.records.claims import Claim, Place
from glue_sparse.reports.claims.evidence import LEAST_SEEDS
from glue_sparse.reports.claims.verdicts import PERCENT, Decision, decided, seeds_needed, verdict

DRAWS = 500


def claim(**changes: Any) -> Claim:
    """That row `b` of grid `g` is a point better than row `a`."""
    usual: dict[str, Any] = {
        "id": "one", "paper": "p", "claim": "c", "source": "s", "expect": "rises", "matters": 1.0, "why": "w",
        "cells": (Place(grid="g", sides=("a", "b")),),
    }  # fmt: skip
    return Claim(**{**usual, **changes})


def decide(scores: dict[str, list[float]], **changes: Any) -> Decision:
    (found,) = decided([claim(**changes)], scored(scores))
    return found


def test_effect_and_interval_are_those_of_the_paired_t_test():
    a, b = [70.0, 74.0, 71.0, 79.0], [72.5, 75.0, 74.0, 80.5]
    found = decide({"a": a, "b": b})
    expected = stats.ttest_rel(b, a).confidence_interval(PERCENT / 100)  # pyright: ignore[reportAttributeAccessIssue]
    assert found.effect == pytest.approx(2.0)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.verdict == "holds" and found.seeds == [0, 1, 2, 3] and found.needed is None


@pytest.mark.parametrize(("best", "half"), [((2e-3, 4e-3), log(2)), ((2e-3, 8e-3), None), ((1e-3, 4e-3), None)])
def test_a_best_rate_is_known_to_half_of_the_way_to_its_neighbours(best: tuple[float, float], half: float | None):
    """Both sides may be off by half of log 2; where one did best at an end of its sweep, nothing is known."""
    runs = [entry(f"{row}-{rate:g}", seed, 50 + (rate == found), learning_rate=rate)
            for row, found in zip("ab", best, strict=True) for rate in (1e-3, 2e-3, 4e-3, 8e-3)
            for seed in range(3)]  # fmt: skip
    place = Place(grid="g", sides=("a", "b"), at="own best")
    (found,) = decided([claim(cells=(place,), measure="log_rate", expect="near", matters=0.9)], runs)
    effect = log(best[1] / best[0])
    assert found.effect == pytest.approx(effect) and found.verdict == "undetermined" and found.needed is None
    if half is None:
        assert found.low is found.high is None and "first or last" in found.notes[-1]
    else:
        assert (found.low, found.high) == pytest.approx((effect - half, effect + half))


CASES = {  # effect, half of the interval, where 1 matters -> rises, does not fall, near
    (2.0, 0.5): ("holds", "holds", "does not hold"),
    (2.0, 3.0): (None, None, None),
    (2.0, 2.5): (None, "holds", None),
    (0.5, 0.2): ("does not hold", "holds", "holds"),
    (0.5, 0.6): (None, "holds", None),
    (0.9, 0.5): (None, "holds", None),
    (0.0, 0.9): ("does not hold", "holds", "holds"),
    (0.0, 1.1): (None, None, None),
    (-0.5, 0.2): ("does not hold", "holds", "holds"),
    (-2.0, 0.5): ("does not hold", "does not hold", "does not hold"),
    (-2.0, 2.5): ("does not hold", None, None),
    (-2.0, 4.0): (None, None, None),
}


@pytest.mark.parametrize(("effect", "half"), CASES)
def test_each_rule_by_hand(effect: float, half: float):
    found = [verdict(expect, effect, effect - half, effect + half, 1) for expect in ("rises", "does not fall", "near")]
    assert (*found,) == CASES[effect, half]


def test_rules_know_no_direction():
    """A fall of a claim that rises is a rise of the turned one: `does not fall` is `rises` turned round and denied."""
    turned = {"holds": "does not hold", "does not hold": "holds", None: None}
    for effect, half in product(np.linspace(-3, 3, 25), (0.1, 0.7, 1.3, 2.9)):
        low, high = effect - half, effect + half
        assert verdict("does not fall", effect, low, high, 1) == turned[verdict("rises", -effect, -high, -low, 1)]
        assert verdict("near", effect, low, high, 1) == verdict("near", -effect, -high, -low, 1)


@pytest.mark.parametrize("count", range(LEAST_SEEDS))
def test_nothing_holds_with_too_few_seeds(count: int):
    found = decide({"a": [70.0] * count, "b": [90.0 + seed for seed in range(count)]})
    assert found.verdict == ("undetermined" if count else "not run") and len(found.seeds) == count


def test_what_cannot_be_compared_is_not_run_and_says_why():
    found = decide({"a": [70.0] * 3, "b": [71.0] * 3}, measure="explored")
    assert found.verdict == "not run" and found.notes == ("not every run holds what is measured, left out: a",)


@pytest.mark.parametrize(("changes", "said"), [
    ({"measure": "scores"}, "claim one: unknown `measure` 'scores'; did you mean score?"),
    ({"measure": "costs.stored_bytes"}, "claim one: unknown `measure` 'costs.stored_bytes'"),
    ({"against": "explored_by"}, "claim one: unknown `against` 'explored_by'; did you mean explored?"),
])  # fmt: skip
def test_an_unknown_measure_is_told(changes: dict[str, Any], said: str):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        decide({}, **changes)
    assert str(caught.value).startswith(said) and len(str(caught.value)) <= 300


def test_seeds_needed_are_those_of_the_power_of_the_t_test():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.3, 2.0, 4)
    spread = float(np.std(differences, ddof=1))
    needed = seeds_needed([*differences], 1.0, "rises")
    assert needed is not None
    for count, enough in ((int(needed), True), (int(needed) - 1, False)):
        draws = rng.normal(1.0, spread, (20_000, count))
        half = stats.t.ppf(0.975, count - 1) * draws.std(axis=1, ddof=1) / np.sqrt(count)
        power = float(np.mean(draws.mean(axis=1) > half))
        assert (power > 0.79) if enough else (power < 0.81)


def test_near_needs_more_seeds_and_noise_without_end_is_told():
    differences = [1.0, -2.0, 3.0]
    more, one = seeds_needed(differences, 1.0, "near"), seeds_needed(differences, 1.0, "rises")
    assert more is not None and one is not None and more > one
    assert seeds_needed(differences, 1e-3, "rises") == float("inf") and seeds_needed([1.0], 1.0, "rises") is None
    assert seeds_needed([1.0, 1.0], 1.0, "near") == LEAST_SEEDS


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5])
def test_how_often_a_verdict_is_wrong(count: int):
    """False alarms stay at 2.5 % for each direction; where the truth is large, the verdict finds it."""
    rng = np.random.default_rng(count)

    def verdicts(effect: float, expect: Any) -> Callable[[str], float]:
        found = Counter[str]()
        for _ in range(DRAWS):
            noise = rng.normal(70, 3, count)
            scores = {"a": [*noise], "b": [*(noise + rng.normal(effect, 1.0, count))]}
            found[decide(scores, expect=expect).verdict] += 1
        return lambda name: found[name] / DRAWS

    slack = 3 * sqrt(0.025 * 0.975 / DRAWS)
    assert verdicts(0.0, "rises")("holds") < 0.025 + slack
    assert verdicts(1.0, "rises")("does not hold") < 0.025 + slack
    assert verdicts(-1.0, "does not fall")("holds") < 0.025 + slack
    assert verdicts(0.0, "does not fall")("does not hold") < 0.025 + slack
    assert verdicts(1.0, "near")("holds") < 0.025 + slack
    assert verdicts(0.0, "near")("does not hold") < 0.05 + slack
    assert verdicts(6.0, "rises")("holds") > 0.95 and verdicts(-6.0, "rises")("does not hold") > 0.95
