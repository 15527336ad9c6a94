"""What claims are about: the score of a run, or a fact of its result as a number."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from math import log
from typing import Any

from glue_sparse.analysis import learning_rates
from glue_sparse.records.results import Result
from glue_sparse.records.scales import PERCENT, scale_of
from glue_sparse.writing.fields import typed
from glue_sparse.writing.words import check_one_of

SCORE = "score"
_BYTES = 4
"""Of an entry of a dense model in float32."""


def _sparsity(result: Result) -> float:
    return 0.0 if result.density is None else 1 - result.density


def _explored_by_formula(result: Result) -> float:
    """Dietrich et al. (2021) with uniform random growth: u <- u (1 - p (1 - s) / s) at each update, u = s at first.

    u is the share never active so far, p the share that the update dropped, s the sparsity. New places are drawn from
    those that were inactive before, so each of these is taken with probability p (1 - s) / s.
    """
    sparsity = unexplored = _sparsity(result)
    for update in result.connections["updates"]:
        unexplored *= max(0.0, 1 - update["fraction"] * (1 - sparsity) / sparsity)
    return 100 * (1 - unexplored)


def _dropped_again(result: Result) -> float:
    """The largest share of the tiles grown at one update that the next one dropped; the paper reports the largest."""
    shares = [update["removed_new_of_new"] for update in result.connections["updates"]]
    return 100 * max(share for share in shares if share is not None)


def _open_gates(result: Result) -> float:
    """The share of the gates that deterministic gates leave open at the last log."""
    return 100 * result.logged("gate_density")[-1][1]


NAMED: Mapping[str, tuple[str, Callable[[Result], float]]] = {
    "trained_share": ("% of the weights", lambda run: 100 * run.trained_entries / run.cost["num_entries"]),
    "stored_share": ("% of a dense file",
                     lambda run: 100 * run.cost["stored_bytes"] / (_BYTES * run.cost["num_entries"])),
    "sent_share": ("% of what dense workers send", lambda run: 100 * run.communication["sent_per_worker"]
                   / run.communication["dense_sent_per_worker"]),
    "training_share": ("% of dense FLOPs", lambda run: 100 * run.flops["training_share"]),
    "explored": ("% of the weights", lambda run: 100 * run.connections["mean_explored"]),
    "explored_by_formula": ("% of the weights", _explored_by_formula),
    "dropped_again": ("% of the tiles grown", _dropped_again),
    "open_gates": ("% of the gates", _open_gates),
    "log_rate": ("of log(rate)", lambda run: log(typed(float, run.learning_rate, "learning_rate"))),
    "log_rate_by_rule": ("of log(rate)", lambda run: log(learning_rates.factor(_sparsity(run)))),
}  # fmt: skip
"""Measure -> its unit, and the number of a run."""
TRIED = ("log_rate",)
"""Measures that are a setting which was tried at some values, so that the best is known to a part of their distance."""

_PARTS = {one.name for one in fields(Result)}


def check(measure: str, key: str) -> None:
    """Raise a ValueError for what is neither a measure nor begins with a part of a result."""
    first, *rest = measure.split(".")
    if not (rest and first in _PARTS):
        otherwise = f"give {', '.join(NAMED)}, or a number of results.json by its path, for instance cost.stored_bytes"
        check_one_of(f"`{key}`", measure, (SCORE, *NAMED), otherwise=otherwise)


def worth(result: Result) -> float:
    """The score in the number that tables show, with its sign turned where smaller is better."""
    scale = scale_of(result.main_metric)
    return scale.worth(scale.shown(result.score))


def unit(measure: str, result: Result) -> str:
    """What the numbers of a measure are called."""
    if measure == SCORE:
        scale = scale_of(result.main_metric)
        return "points" if scale == PERCENT else scale.unit.partition(",")[0]
    return NAMED[measure][0] if measure in NAMED else measure.rpartition(".")[2].replace("_", " ")


def value(measure: str, result: Result) -> float | None:
    """The number of a run; none where its result does not hold it."""
    if measure == SCORE:
        return worth(result)
    of = NAMED[measure][1] if measure in NAMED else _at(measure)
    try:
        return typed(float, of(result), measure)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None  # of a method that does not count it, or of a record of someone else


def _at(path: str) -> Callable[[Result], float]:
    """The number at a path of results.json."""
    field, *keys = path.split(".")

    def of(result: Result) -> Any:
        found = getattr(result, field)
        for key in keys:
            found = found[key]
        return found

    return of
