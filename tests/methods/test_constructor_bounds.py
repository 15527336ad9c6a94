"""Numbers that make no sense are refused by methods that are made in Python, as they are on a command line."""

from collections.abc import Callable
from typing import Any

import pytest

from glue_sparse import FixedMask
from glue_sparse.methods.gates.diff_gates import DiffGates
from glue_sparse.methods.gates.hard_concrete import HardConcrete
from glue_sparse.methods.moving.drop_grow import DropGrow
from glue_sparse.methods.schedules import Schedule

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("make", "name", "values"),
    [
        (DiffGates, "penalty", [NAN, INF, -1, [0.1, NAN]]),
        (DiffGates, "alpha_init", [NAN, INF, -INF]),
        (DiffGates, "gate_learning_rate", [NAN, INF, -1]),
        (DiffGates, "gate_eps", [NAN, INF, -1, 0]),
        (HardConcrete, "temperature", [NAN, INF, -1, 0]),
        (HardConcrete, "lower", [NAN, -INF, 0.1]),
        (HardConcrete, "upper", [NAN, INF, 0.9]),
        (DropGrow, "group_lasso", [NAN, INF, -1]),
        (DropGrow, "weight_decay", [NAN, INF, -1]),
        (DropGrow, "power", [NAN, INF, -1]),
        (Schedule, "drop_fraction", [NAN, INF, -0.1, 1.1]),
        (Schedule, "intervals", [NAN, INF, -1, 0, 1.5]),
        (lambda **more: FixedMask(lambda *rest: {}, **more), "num_samples", [NAN, INF, -1, 0, 1.5]),
    ],
)
def test_refused(make: Callable[..., Any], name: str, values: list[Any]):
    for value in values:
        with pytest.raises(ValueError, match="must be|with `concrete_lower"):
            make(**{name: value})
