"""Bounds of numbers: what is inside, what is said of the others, and numbers as they are typed."""

from argparse import ArgumentTypeError

import pytest

from glue_sparse.writing.bounds import BELOW_ONE, COUNT, FINITE, LARGEST, SEED, STEPS, Bounds, Number, check

HUGE = [10**20, 1e300, float("inf"), float("-inf"), float("nan"), -(10**400)]


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "told"),
    [
        (COUNT, [1, 7, 1.0], [0, -1, 0.5], "at least 1"),
        (BELOW_ONE, [0, 0.999], [1, -1e-9], "in [0, 1)"),
        (SEED, [0, 2**32 - 1], [2**32, -1], "in [0, 4294967295]"),
        (FINITE, [-5, 0, LARGEST], [LARGEST + 1], "a finite number"),
        (Bounds(most=0), [-3, 0], [0.1], "at most 0"),
        (Bounds(1, also=(-1,)), [1, -1], [0, -2], "at least 1 or -1"),
        (STEPS, [0.1, 1, 20], [0, 1.5], "above 0 and whole from 1 on"),
    ],
)
def test_ends(bounds: Bounds, inside: list[float], outside: list[float], told: str):
    assert str(bounds) == told
    assert not any(bounds.problem(value) for value in inside)
    assert all("must be " in (bounds.problem(value) or "") for value in [*outside, *HUGE])
    assert all(len(bounds.problem(value) or "") < 120 for value in HUGE)


@pytest.mark.parametrize("value", ["1", None, True, [1], 1j])
def test_what_is_no_number(value: object):
    assert (COUNT.problem(value) or "").startswith("must be a number, not ")


def test_whole_numbers():
    assert COUNT.problem(2.5, int) == "must be a whole number, not 2.5"
    assert COUNT.problem(2.0, int) is None and COUNT.problem(2.5) is None


def test_the_argument_is_named():
    check("rate", None, COUNT)
    check("rate", [1, 2], COUNT)
    with pytest.raises(ValueError, match="^`rate` must be at least 1, got 0$"):
        check("rate", (1, 0), COUNT)


@pytest.mark.parametrize("text", ["x", "", "1.5", "9" * 5000, "0", "nan", "１x"])
def test_typed_numbers(text: str):
    assert Number(int, COUNT)("12") == 12
    with pytest.raises(ArgumentTypeError) as found:
        Number(int, COUNT)(text)
    assert len(str(found.value)) < 120
