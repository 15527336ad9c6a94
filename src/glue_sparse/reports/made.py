"""Where numbers come from: dates, versions, models, seeds and hours of archived runs, computed; loads no model."""

from collections.abc import Iterable, Sequence

from glue_sparse.records.archive import Entry
from glue_sparse.records.results import Result

_SPENT = "choosing the mask, training and evaluation"
HOURS = ("grid", "runs", "seeds", "hours", "made")
"""What `hours` gives of each grid."""


def lines(entries: Sequence[Entry]) -> list[str]:
    """A list in markdown that says of what the runs were made, and what they cost.

    Raises:
        ValueError: there is no run.
    """
    if not entries:
        raise ValueError("no run is archived of the grids that are named: `glue-sparse results collect` does that")
    found = [one.result for one in entries]
    packages = sorted({name for result in found for name in result.versions})
    versions = {name: _each(result.versions.get(name) for result in found) for name in packages}
    told = {
        "grids": _each(one.grid for one in entries),
        "models": _each(result.model for result in found),
        "data": _each(result.title for result in found),
        "seeds": _each(str(seed) for seed in sorted({result.seed for result in found})),
        "made": _dates(found),
        "versions": ", ".join(f"{name} {numbers}" for name, numbers in versions.items()),
        "runs": f"{len(found)}, which took {_hours(found):.1f} hours together ({_SPENT})",
    }
    return [f"* {name}: {text}" for name, text in told.items() if text]


def hours(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """A line for each grid, the runs that chose its settings included, and one for all: runs, seeds, hours, dates."""
    grids = dict.fromkeys(one.whole_grid for one in entries)
    found = {grid: [one.result for one in entries if one.whole_grid == grid] for grid in grids}
    found["all"] = [one.result for one in entries]
    return [(grid, str(len(runs)), str(len({run.seed for run in runs})), f"{_hours(runs):.1f}", _dates(runs))
            for grid, runs in found.items()]  # fmt: skip


def _hours(found: Iterable[Result]) -> float:
    return sum(sum(result.seconds.values()) for result in found) / 3600


def _dates(found: Iterable[Result]) -> str:
    dates = sorted({result.date[:10] for result in found if result.date})
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else ""


def _each(texts: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text))
