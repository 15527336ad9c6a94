"""Figures from result files: score over a setting, one line per task, PNG and SVG; loads no model."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from glue_sparse.experiments.cells import Cell, Grid
from glue_sparse.records.scales import scale_of, scales_of
from glue_sparse.reports.figures import plots
from glue_sparse.reports.places import Place
from glue_sparse.reports.sheet import Sheet
from glue_sparse.writing.fields import typed
from glue_sparse.writing.words import check_one_of, command, prefixed

PANEL_KINDS: dict[str, Any] = {
    "x": str, "label": str, "where": dict[str, Any], "line": str, "names": dict[str, str], "level": str
}  # fmt: skip
"""Key of a panel -> what it is in a YAML."""
ROW = "row"
"""As a panel's `line`: one line per row of the YAML, whose sweep makes its points."""


def check(grid: Grid) -> list[dict[str, Any]]:
    """The panels of a grid's YAML that any of its rows belongs to: a part of a grid may have none.

    Raises:
        ValueError: the YAML describes no panel, or has an unknown key.
    """
    if not grid.figure.get("panels"):
        raise ValueError(f"{grid.name} describes no figure: its YAML needs `figure: {{panels: [{{x: density}}]}}`")
    with prefixed(f"figure of {grid.name}"):
        for key in grid.figure:
            check_one_of("key", key, ("panels",))
        panels = typed(list[dict[str, Any]], grid.figure["panels"], "`panels`")
        for panel in panels:
            _check_panel(grid, panel)
    return [panel for panel in panels if _members(grid, panel)]


def _check_panel(grid: Grid, panel: dict[str, Any]) -> None:
    for key, value in panel.items():
        check_one_of("key", key, [*PANEL_KINDS])
        typed(PANEL_KINDS[key], value, f"`{key}` of a panel")
    if "x" not in panel:
        raise ValueError("a panel needs `x`, the setting on its horizontal axis")
    for key in (panel["x"], *panel.get("where", {}), *([panel["line"]] if panel.get("line", ROW) != ROW else [])):
        grid.cells[0].value(key)
    for cell in _members(grid, panel):
        typed(float, cell.value(panel["x"]), f"`{panel['x']}`, on the axis of a panel, of {cell.name}")


def _members(grid: Grid, panel: dict[str, Any]) -> list[Cell]:
    """The first cell of each place that belongs to a panel."""
    where = panel.get("where") or {}
    cells = [grid.at(row, column)[0] for row in grid.rows for column in grid.columns if row != panel.get("level")]
    return [cell for cell in cells if all(cell.value(key) == want for key, want in where.items())]


def lines(sheet: Sheet, panel: dict[str, Any]) -> dict[str, list[tuple[float, Place]]]:
    """Label -> (x, what was found there), sorted by x; places without a run are among them."""
    found, grid, all_places = {}, sheet.grid, sheet.places
    titles = {column: result.title for (_, column), place in all_places.items() for result in place.found}
    for cell in _members(grid, panel):
        parts = [titles.get(cell.column, cell.column)] if len(grid.columns) > 1 or "line" not in panel else []
        line = _line(grid, cell, panel["line"]) if "line" in panel else ""
        parts += [(panel.get("names") or {}).get(line, line)] if line else []
        point = float(cell.value(panel["x"])), all_places[cell.row, cell.column]
        found.setdefault(", ".join(parts), []).append(point)
    return {label: sorted(points, key=lambda point: point[0]) for label, points in found.items()}


def _line(grid: Grid, cell: Cell, setting: str) -> str:
    return grid.family.get(cell.row, cell.row) if setting == ROW else str(cell.value(setting))


def _levels(sheet: Sheet, panel: dict[str, Any]) -> list[float]:
    """Scores of the row that a panel draws as a horizontal line, in the columns that it shows."""
    columns = {cell.column for cell in _members(sheet.grid, panel)}
    found = [place for (row, column), place in sheet.places.items() if row == panel.get("level") and column in columns]
    return [place.mean for place in found if place.found]


def draw(sheet: Sheet, folder: Path) -> list[Path]:
    """Draw NAME.png and NAME.svg; returns their paths.

    Raises:
        ValueError: matplotlib is missing, or there is nothing to draw yet.
    """
    grid = sheet.grid
    panels = check(grid)
    if not panels:
        raise ValueError(f"figure of {grid.name}: no row has {grid.figure['panels'][0].get('where')}")
    if not sheet.found:
        raise ValueError(f"{grid.name} has no finished run yet: {command(f'table run {grid.name}.yaml')}")
    figure, axes = plots.pyplot().subplots(1, len(panels), figsize=(5 * len(panels), 4), sharey=True, squeeze=False)
    for index, (axis, panel) in enumerate(zip(axes[0], panels, strict=True)):
        for mean in _levels(sheet, panel):
            axis.axhline(mean, color="black", linestyle="--", linewidth=1, label=panel["level"])
        _panel(axis, panel, lines(sheet, panel))
        if index == 0:
            axis.set_ylabel(fill(_score_label(sheet), 45), fontsize=8)
    spread = any(place.std is not None for place in sheet.places.values())
    title = f"{grid.title}{' (mean and standard deviation over seeds)' if spread else ''}"
    figure.suptitle(fill(title, 70 * len(panels)), fontsize=10)
    return plots.write(figure, folder, grid.name)


def _panel(axis: Any, panel: dict[str, Any], named: dict[str, list[tuple[float, Place]]]) -> None:
    ticks = sorted({x for points in named.values() for x, _ in points})
    for label, points in named.items():
        done = [(x, place) for x, place in points if place.found]
        if not done:
            continue
        x, mean = [x for x, _ in done], [place.mean for _, place in done]
        std = [place.std or 0.0 for _, place in done]
        (line,) = axis.plot(x, mean, marker="o", label=f"{label} ({_seeds([place for _, place in points])})")
        low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
        axis.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    if ticks and ticks[0] > 0:
        axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel(panel.get("label", panel["x"]))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _seeds(line: Sequence[Place]) -> str:
    """How many seeds the points of a line have, out of those wanted."""
    counts, wanted = sorted({len(place.found) for place in line}), line[0].wanted
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    number = number if counts == [wanted] else f"{number} of {wanted}"
    return f"{number} seed{'s' if wanted > 1 else ''}"


def _score_label(sheet: Sheet) -> str:
    results = sheet.found
    titles, metrics = ({getattr(r, field): None for r in results} for field in ("title", "main_metric"))
    task = f"{next(iter(titles))} " if len(titles) == 1 else ""
    scales = scales_of(results)
    if len(scales) == 1:
        return f"{task}{' / '.join(metrics)}{scales[0].sign}"
    return task + " / ".join(f"{metric}{scale_of(metric).sign}" for metric in metrics)
