"""What is compared with what: columns, sweeps at equal and best values, lines through several sides, facts."""

from math import log
from statistics import mean
from typing import Any

import numpy as np
import pytest

from entries import entry, scored
from glue_sparse.records.archive import Entry
from glue_sparse.records.claims import Claim, Place
from glue_sparse.reports.claims.evidence import Evidence, gathered
from glue_sparse.reports.claims.runs import Runs


def gather(entries: list[Entry], *cells: Place, **changes: Any) -> Evidence | None:
    usual: dict[str, Any] = {"expect": "rises", "matters": 1.0, "cells": cells, "why": "w"}
    claim = Claim(id="one", paper="p", claim="c", source="s", **{**usual, **changes})
    return gathered(claim, Runs(entries))


def differences(entries: list[Entry], *cells: Place, **changes: Any) -> list[float]:
    found = gather(entries, *cells, **changes)
    assert found is not None
    return [*found.differences.values()]


AB = Place(grid="g", sides=("a", "b"))


def test_columns_are_averaged_for_each_seed():
    one = scored({"a": [70.0, 71.0, 72.0], "b": [71.0, 73.0, 75.0]}, column="x")
    two = scored({"a": [50.0, 50.0, 50.0], "b": [50.0, 49.0, 48.0]}, column="y")
    found = gather(one + two, AB)
    assert found is not None and found.differences == pytest.approx({0: 0.5, 1: 0.5, 2: 0.5})
    assert found.by_stratum == pytest.approx({("x", "", ""): 2.0, ("y", "", ""): -1.0}) and found.unit == "points"
    assert differences(one + two, Place(grid="g", sides=("a", "b"), columns=("x",))) == pytest.approx([1, 2, 3])


def test_only_seeds_of_both_sides_count_and_columns_with_too_few_are_left_out():
    one = scored({"a": [70.0, 71.0, 72.0, 73.0], "b": [71.0, 73.0, 75.0]}, column="x")
    two = scored({"a": [50.0], "b": [60.0]}, column="y")
    found = gather(one + two, AB)
    assert found is not None and found.differences == pytest.approx({0: 1.0, 1: 2.0, 2: 3.0})
    assert found.notes == ("fewer than 3 seeds, left out: y",)


def test_less_loss_is_better():
    found = gather(scored({"a": [2.5, 2.5], "b": [2.25, 2.5]}, metric="loss"), AB)
    assert found is not None and found.differences == pytest.approx({0: 0.25, 1: 0.0}) and found.unit == "nats"


def test_several_sides_are_a_line_of_least_squares():
    rng = np.random.default_rng(0)
    scores = rng.normal(70, 5, (4, 3))
    found = differences(scored({row: [*scores[:, i]] for i, row in enumerate("abc")}),
                        Place(grid="g", sides=("a", "b", "c")))  # fmt: skip
    assert found == pytest.approx([2 * np.polyfit(range(3), line, 1)[0] for line in scores])


RATES = {"a-0.1": [70.0, 71.0, 72.0], "a-0.01": [60.0, 61.0, 62.0],
         "b-0.1": [72.0, 74.0, 76.0], "b-0.01": [50.0, 80.0, 50.0], "b-1e-05": [1.0, 1.0, 1.0]}  # fmt: skip


def test_equal_values_are_those_that_all_sides_have():
    found = gather(scored(RATES), Place(grid="g", sides=("a", "b"), at="equal"))
    assert found is not None
    assert [*found.differences.values()] == pytest.approx([mean([2, -10]), mean([3, 19]), mean([4, -12])])
    assert found.by_stratum == pytest.approx({("a", "", "0.1"): 3.0, ("a", "", "0.01"): -1.0})
    one = differences(scored(RATES), Place(grid="g", sides=("a", "b"), at="equal", values=(0.1, 1e-5)))
    assert one == pytest.approx([2, 3, 4])


def test_best_values_are_chosen_on_the_other_seeds():
    """With b-0.01 at 50, 80, 50: on the others' mean it is never ahead of b-0.1; a choice on all would see seed 1."""
    found = differences(scored(RATES), Place(grid="g", sides=("a", "b"), at="best"))
    assert found == pytest.approx([2, 3, 4])
    lucky = {"a": [70.0, 70.0, 70.0], "b-1": [90.0, 60.0, 60.0], "b-2": [60.0, 90.0, 60.0], "b-3": [60.0, 60.0, 90.0]}
    assert differences(scored(lucky), Place(grid="g", sides=("a", "b"), at="best")) == pytest.approx([-10, -10, -10])
    own = differences(scored(lucky), Place(grid="g", sides=("a", "b"), at="own best"))
    assert own == pytest.approx([20, 20, 20])


def test_best_of_one_seed_says_nothing():
    found = gather(scored({"a-1": [70.0], "b-1": [71.0]}), Place(grid="g", sides=("a", "b"), at="best"))
    assert found is not None and not found.differences


def test_columns_without_a_common_seed_are_told():
    found = gather(
        [*scored({"a": [1.0], "b": [1.0]}, column="x"), entry("a", 1, 1.0, column="y"), entry("b", 1, 1.0, column="y")],
        AB,
    )
    assert found is not None and not found.differences
    assert found.notes[0] == "no seed has runs of every side in every column"


def test_a_value_that_a_seed_lacks_takes_no_part():
    entries = [one for one in scored(RATES) if (one.row, one.seed) != ("b-0.1", 2)]
    found = differences(entries, Place(grid="g", sides=("a", "b"), at="equal"))
    assert found == pytest.approx([-10, 19, -12])
    found = differences(entries, Place(grid="g", sides=("a", "b"), at="best"))
    assert found == pytest.approx([-20, 9, -22])


def test_families_are_rows_that_end_with_a_number():
    scores = {"a": [1.0, 1.0], "b-0.005-0.1": [2.0, 2.0], "b-0.005-late": [9.0, 9.0], "b-0.0050-0.2": [9.0, 9.0]}
    assert differences(scored(scores), Place(grid="g", sides=("a", "b-0.005"), at="best")) == pytest.approx([1, 1])
    assert gather(scored(scores), Place(grid="g", sides=("a", "b-0.005"))) is None, "a sweep is no row"


def test_each_fills_the_sides():
    scores = {"a-0.5": [1.0, 1.0], "b-0.5": [2.0, 3.0], "a-2": [1.0, 1.0], "b-2": [5.0, 5.0], "a-7": [0.0]}
    found = gather(scored(scores), Place(grid="g", sides=("a-{}", "b-{}"), each=(0.5, 2, 7)))
    assert found is not None and found.by_stratum == pytest.approx({("a", "0.5", ""): 1.5, ("a", "2", ""): 4.0})


def test_a_side_may_name_its_column_and_a_model_is_not_mixed_with_another():
    entries = [*scored({"dense": [3.0, 3.0]}, column="tiny", model="tiny", metric="loss", title="text"),
               *scored({"sparse": [2.0, 2.5]}, column="mini", model="mini", metric="loss", title="text")]  # fmt: skip
    place = Place(grid="g", sides=("dense@tiny", "sparse@mini"))
    assert differences(entries, place) == pytest.approx([1.0, 0.5])
    small = scored({"a": [1.0, 1.0, 1.0], "b": [2.0, 2.0, 2.0]}, model="small")
    large = scored({"a": [1.0, 1.0, 1.0, 1.0], "b": [9.0, 9.0, 9.0, 9.0]}, model="large")
    assert differences(small + large, AB) == pytest.approx([8.0] * 4)
    assert differences(small + large[:4], AB) == pytest.approx([1.0] * 3)


def test_the_first_place_with_enough_seeds_decides():
    entries = [*scored({"a": [1.0, 1.0, 1.0], "b": [2.0, 2.0, 2.0]}, grid="small"),
               *scored({"a": [1.0, 1.0], "b": [9.0, 9.0]}, grid="large")]  # fmt: skip
    large, little = Place(grid="large", sides=("a", "b")), Place(grid="small", sides=("a", "b"))
    assert differences(entries, large, little) == pytest.approx([1.0] * 3)
    assert differences(entries, large) == pytest.approx([8.0] * 2)
    assert gather(entries, AB) is None


def test_sides_that_saw_different_data_are_not_compared():
    entries = [*scored({"a": [1.0, 1.0], "b": [2.0, 2.0]}, column="x"), *scored({"a": [1.0, 1.0]}, column="y"),
               *scored({"b": [9.0, 9.0]}, column="y", source={"rows": {"train": 5}})]  # fmt: skip
    found = gather(entries, AB)
    assert found is not None and [*found.by_stratum] == [("x", "", "")]
    assert found.notes == ("the sides saw different data, left out: y",)


def test_scores_without_a_common_unit_have_no_mean():
    entries = [
        *scored({"a": [1.0], "b": [2.0]}, column="x"),
        *scored({"a": [1.0], "b": [2.0]}, column="y", metric="loss"),
    ]
    with pytest.raises(ValueError, match="claim one has scores in nats and in points in grid g.*give `columns`"):
        gather(entries, AB)


AGAIN = (None, 0.5, 0.25)


def moving(seed: int, density: float, fractions: list[float], explored: float, **changes: Any) -> Entry:
    updates = [{"fraction": one, "removed_new_of_new": again} for one, again in zip(fractions, AGAIN, strict=True)]
    facts = {"updates": updates, "mean_explored": explored}
    return entry("a", seed, 50.0, density=density, connections=facts, **changes)


def test_facts_of_moving_masks_follow_their_formulas():
    one = Place(grid="g", sides=("a",))
    entries = [moving(seed, 0.1, [0.5, 0.4, 0.3], 0.2 + 0.01 * seed) for seed in range(3)]
    left = 0.9 * (1 - 0.5 / 9) * (1 - 0.4 / 9) * (1 - 0.3 / 9)
    found = differences(entries, one, measure="explored", against="explored_by_formula")
    assert found == pytest.approx([20 + seed - 100 * (1 - left) for seed in range(3)])
    assert differences(entries, one, measure="dropped_again", against=10) == pytest.approx([40.0] * 3)
    assert differences(entries, one, measure="connections.mean_explored", against=0) == pytest.approx([0.2, 0.21, 0.22])


def test_the_rate_of_a_sweep_is_held_against_equation_3():
    runs = [entry(f"{row}-{rate:g}", seed, 50 + (rate == best), learning_rate=rate, density=density)
            for row, density, best in (("dense", None, 1e-3), ("sparse", 0.1, 4e-3))
            for rate in (1e-3, 2e-3, 4e-3) for seed in range(2)]  # fmt: skip
    place = Place(grid="g", sides=("dense", "sparse"), at="own best")
    found = differences(runs, place, measure="log_rate", against="log_rate_by_rule")
    assert found == pytest.approx([log(4) - (1.969 * 0.81 + 0.2905 * 0.9)] * 2)


def test_shares_of_bytes_and_weights():
    costs = {"a": {"stored_bytes": 40, "trainable": 10}, "b": {"stored_bytes": 4000, "trainable": 1000}}
    entries = [entry(row, seed, 50.0, cost=cost) for row, cost in costs.items() for seed in range(2)]
    assert differences(entries, AB, measure="stored_share") == pytest.approx([99.0] * 2)
    assert differences(entries, AB, measure="trained_share") == pytest.approx([99.0] * 2)
    assert differences(entries, AB, measure="cost.stored_bytes") == pytest.approx([3960.0] * 2)


@pytest.mark.parametrize("measure", ["explored", "cost.nothing", "open_gates", "sent_share", "seconds.train.x"])
def test_what_runs_do_not_hold_is_not_run(measure: str):
    found = gather(scored({"a": [1.0, 1.0], "b": [1.0, 1.0]}), AB, measure=measure)
    assert found is not None and not found.differences
    assert found.notes == ("not every run holds what is measured, left out: a",)
