"""Rows of a grid side by side: score, weights that train, bytes, seconds, and what the grid notes of each."""

from glue_sparse.records.results import Result
from glue_sparse.reports.places import Place
from glue_sparse.reports.sheet import Sheet

_COSTS = ("weights trained", "of all", "stored per task", "optimizer state", "seconds")


def table(sheet: Sheet) -> tuple[list[str], list[list[str]]]:
    """Header and lines, one per row and column; no lines for a grid without notes.

    Scores are means over seeds, as in the grid's table; what it costs is that of the first run found.
    """
    grid, several = sheet.grid, len(sheet.grid.columns) > 1
    titles = sheet.titles_with_metric
    metrics = " / ".join(dict.fromkeys(result.main_metric for result in sheet.found))
    header = ["", *(["task"] if several else []), "score" if several else metrics or "score", *_COSTS]
    lines = []
    for (row, column), place in sheet.places.items():
        told = grid.notes.get(grid.family.get(row, row), "")
        lines.append([row, *([titles[column]] if several else []), place.text(), *_costs(place), told])
    return [*header, "good for"], lines if grid.notes else []


def _costs(place: Place) -> list[str]:
    if not place.found:
        return ["-"] * len(_COSTS)
    result: Result = place.found[0]
    cost = result.cost
    return [
        f"{result.trained_entries:,}",
        f"{result.trained_entries / cost['num_entries']:.3%}",
        megabytes(cost["stored_bytes"]),
        megabytes(cost["state_bytes"]) if "state_bytes" in cost else "-",
        f"{result.seconds['choose'] + result.seconds['train']:.0f}",
    ]


def megabytes(number: float) -> str:
    """Bytes as a reader compares them."""
    return f"{number / 1e6:,.2f} MB"
