"""Runs of grids as the claims see them, made from numbers."""

from typing import Any

from glue_sparse.records.archive import Entry
from glue_sparse.records.results import Result
from small_grids import COST


def entry(row: str, seed: int, score: float, **changes: Any) -> Entry:
    """A run of grid `g`; `score` is the number that tables show. `grid`, `column`, `model` and facts as told."""
    place = {name: changes.pop(name, usual) for name, usual in (("grid", "g"), ("model", "small"), ("column", "a"))}
    metric = changes.pop("metric", "accuracy")
    cost = {**COST, **changes.pop("cost", {})}
    facts: dict[str, Any] = {
        "task": place["column"], "title": place["column"], "method": row, "density": None, "seed": seed,
        "model": place["model"], "history": [], "seconds": {"choose": 0.0, "train": 1.0}, "source": {},
        "arguments": {}, "command": "", "date": "", **changes,
    }  # fmt: skip
    value = score if metric == "loss" else score / 100
    result = Result(main_metric=metric, metrics={"validation": {metric: value}}, cost=cost, **facts)
    return Entry(**place, row=row, seed=seed, result=result)


def scored(scores: dict[str, list[float]], **changes: Any) -> list[Entry]:
    """Row -> scores of seeds 0, 1, ... of one column."""
    return [entry(row, seed, one, **changes) for row, found in scores.items() for seed, one in enumerate(found)]
