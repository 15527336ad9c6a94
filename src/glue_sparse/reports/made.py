"""Where numbers come from: dates, versions, models, seeds and hours of archived runs, computed; loads no model."""

from collections.abc import Iterable, Sequence

from glue_sparse.records.archive import Entry


def lines(entries: Sequence[Entry]) -> list[str]:
    """A list in markdown that says of what the runs were made, and what they cost.

    Raises:
        ValueError: there is no run.
    """
    if not entries:
        raise ValueError("no run is archived of the grids that are named: `glue-sparse results collect` does that")
    found = [one.result for one in entries]
    dates = sorted({result.date[:10] for result in found if result.date})
    packages = sorted({name for result in found for name in result.versions})
    versions = {name: _each(result.versions.get(name) for result in found) for name in packages}
    hours = sum(sum(result.seconds.values()) for result in found) / 3600
    told = {
        "grids": _each(one.grid for one in entries),
        "models": _each(result.model for result in found),
        "data": _each(result.title for result in found),
        "seeds": _each(str(seed) for seed in sorted({result.seed for result in found})),
        "made": dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else "",
        "versions": ", ".join(f"{name} {numbers}" for name, numbers in versions.items()),
        "runs": f"{len(found)}, which took {hours:.1f} hours together (choosing the mask, training and evaluation)",
    }
    return [f"* {name}: {text}" for name, text in told.items() if text]


def _each(texts: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text))
