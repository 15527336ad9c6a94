"""The charts of a report, as specifications for Vega-Lite: lines with bands, points, and maps of layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from glue_sparse.reports.page import series
from glue_sparse.reports.page.lines import Line, swept
from glue_sparse.writing.tables import csv_text

MOST_LINES = 10
"""Of curves in one chart: those of the best rows."""
MOST_ROWS = 24
"""Of a map of layers."""
_PRICES = (
    ("cost", "stored_bytes", "bytes stored"), ("cost", "state_bytes", "bytes of the optimizer's state"),
    ("flops", "training_flops", "FLOPs of the training"),
)  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """A figure of the page: what it shows, a sentence about it, and its specification."""

    title: str
    caption: str
    spec: dict[str, Any]


def charts(lines: Sequence[Line]) -> list[Chart]:
    """All that the lines of a column have something to show for."""
    metric = lines[0].first.main_metric + lines[0].scale.sign
    found, best = _sweeps(lines, metric)
    best = sorted(best, key=lambda line: -line.worth)
    return [*found, *_curves(best, metric), *_prices(best, metric), *_layers(best)]


_SPREAD = "Mean over seeds; the band spans them. Click in the legend to see one."


def _sweeps(lines: Sequence[Line], metric: str) -> tuple[list[Chart], Sequence[Line]]:
    """The sweeps, and the lines with each sweep as its best.

    A sweep of sweeps, as of learning rates at several densities, is one of the best of each.
    """
    found, picked = [], ""
    while True:
        sweeps, best = swept(lines)
        for one in sweeps:
            spec = _lines(series.sweep(one), one.setting.replace("_", " "), metric, "values")
            found.append(Chart(f"Score over {one.setting.replace('_', ' ')}", _SPREAD + picked, spec))
        if not sweeps:
            return found, lines
        lines, picked = best, " Each point is the best of its own sweep, by the score that is shown."


def _curves(best: Sequence[Line], metric: str) -> Iterator[Chart]:
    some = best[:MOST_LINES]
    which = f" The best {len(some)} of {len(best)} rows." if len(some) < len(best) else ""
    drawn = (series.scores(some), "Score over training", metric), (series.losses(some), "Training loss", "loss")
    for rows, title, axis in drawn:
        if rows:
            yield Chart(title, _SPREAD + which, _lines(rows, "step", axis, "steps"))


def _prices(best: Sequence[Line], metric: str) -> Iterator[Chart]:
    for part, name, what in _PRICES:
        rows = series.prices(best, part, name)
        if len({row[1] for row in rows}) > 1:
            yield Chart(f"Score over {what}", "A point for each row; its bar spans the seeds.",
                        _points(rows, what, metric))  # fmt: skip


def _layers(best: Sequence[Line]) -> Iterator[Chart]:
    rows, order = series.layers(best[:MOST_ROWS])
    if rows:
        caption = "Share of a row's active entries in each layer; point at one for what is active there."
        yield Chart("Where the active entries lie", caption, _map(rows, order))


def _spans(values: Sequence[float]) -> bool:
    """Whether values are positive and far enough apart for a scale of logarithms."""
    return min(values) > 0 and max(values) >= 8 * min(values)


def _data(header: Sequence[str], rows: series.Rows) -> dict[str, Any]:
    """As CSV, a third of what JSON takes; the first column and `t` are text."""
    told = [[f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows]
    parse = {name: "string" if name in ("row", "layer", "t") else "number" for name in header}
    return {"values": csv_text(header, told), "format": {"type": "csv", "parse": parse}}


def _across(title: str, rows: series.Rows, ticks: str) -> dict[str, Any]:
    values = [row[1] for row in rows]
    scale = {"type": "log", "nice": False} if ticks != "steps" and _spans(values) else {"zero": False}
    axis = {"title": title, "format": "~g" if ticks == "values" else "~s", "labelOverlap": True}
    if ticks == "values":
        axis["values"] = sorted({*values})
    return {"field": "x", "type": "quantitative", "scale": scale, "axis": axis}


def _up(field: str, title: str) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "scale": {"zero": False}, "axis": {"title": title}}


def _colour(field: str, rows: series.Rows) -> dict[str, Any]:
    names = [*dict.fromkeys(row[0 if field == "row" else -1] for row in rows)]
    legend = {"title": None, "orient": "bottom", "columns": {"expr": "max(1, floor(width / 130))"}, "labelLimit": 120,
              "symbolOpacity": 1}
    return {"field": field, "type": "nominal", "sort": names, "legend": legend,
            "scale": {"domain": names, "scheme": "tableau10" if len(names) <= 10 else "tableau20"}}  # fmt: skip


_PICK = [{"name": "pick", "select": {"type": "point", "fields": ["row"]}, "bind": "legend"}]
_PICKED = {"condition": {"param": "pick", "value": 1}, "value": 0.12}


def _tips(**named: str) -> list[dict[str, str]]:
    formats = {"x": ".4~g", "y": ".4~f", "low": ".4~f", "high": ".4~f", "share": ".2%", "lies": ".1%", "k": ",.0f"}
    return [{"field": field, "title": title, "type": "quantitative", "format": formats[field]} if field in formats
            else {"field": field, "title": title, "type": "nominal"} for field, title in named.items()]  # fmt: skip


def _lines(rows: series.Rows, x: str, y: str, ticks: str) -> dict[str, Any]:
    """Lines with bands; a click in the legend picks some. Ticks are at all `values`, or those of `steps`."""
    across, colour = _across(x, rows, ticks), _colour("row", rows)
    tips = _tips(row="row", x=x, y="mean", low="least", high="largest", t="seeds")
    band = {"mark": {"type": "area", "opacity": 0.18}, "encoding": {
        "x": across, "y": _up("low", y), "y2": {"field": "high"}, "color": colour,
        "opacity": {"condition": {"param": "pick", "value": 0.18}, "value": 0.0}}}  # fmt: skip
    line = {"mark": {"type": "line", "point": {"size": 22}, "strokeWidth": 1.8}, "params": _PICK, "encoding": {
        "x": across, "y": _up("y", y), "color": colour, "opacity": _PICKED, "tooltip": tips}}  # fmt: skip
    return _whole(_data(("row", "x", "y", "low", "high", "t"), rows), layer=[band, line])


def _points(rows: series.Rows, x: str, y: str) -> dict[str, Any]:
    """Points with bars over seeds, coloured by method."""
    across, colour = _across(x, rows, "sizes"), _colour("t", rows)
    tips = _tips(row="row", t="method", x=x, y="mean", low="least", high="largest")
    bar = {"mark": {"type": "rule", "opacity": 0.5}, "encoding": {
        "x": across, "y": _up("low", y), "y2": {"field": "high"}, "color": colour}}  # fmt: skip
    point = {"mark": {"type": "point", "filled": True, "size": 55, "opacity": 0.9}, "encoding": {
        "x": across, "y": _up("y", y), "color": colour, "tooltip": tips}}  # fmt: skip
    return _whole(_data(("row", "x", "y", "low", "high", "t"), rows), layer=[bar, point])


def _map(rows: series.Rows, order: list[str]) -> dict[str, Any]:
    """A row of cells for each row of the table, a cell for each layer."""
    names = [*dict.fromkeys(row[0] for row in rows)]
    tips = _tips(row="row", layer="layer", lies="of its active entries", share="active of the layer",
                 k="active entries", t="most of them in")  # fmt: skip
    encoding = {
        "x": {"field": "layer", "type": "ordinal", "sort": order, "axis": {"title": "layer", "labelAngle": -40}},
        "y": {"field": "row", "type": "nominal", "sort": names, "axis": {"title": None, "labelLimit": 130}},
        "color": {"field": "lies", "type": "quantitative", "scale": {"scheme": "viridis"},
                  "legend": {"title": None, "format": ".0%", "orient": "bottom", "gradientLength": 160}},
        "tooltip": tips,
    }  # fmt: skip
    data = _data(("row", "layer", "lies", "share", "k", "t"), rows)
    return _whole(data, height=18 * len(names), mark={"type": "rect"}, encoding=encoding)


def _whole(data: dict[str, Any], height: int = 210, **drawing: Any) -> dict[str, Any]:
    fitted = {"width": "container", "height": height, "autosize": {"type": "fit-x", "contains": "padding"}}
    return {**fitted, "data": data, **drawing}
