"""Figures of losses over FLOPs beside the dense front, and of learning-rate sweeps with their fits; loads no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glue_sparse.analysis.learning_rates import factor
from glue_sparse.reports.figures import plots
from glue_sparse.reports.pareto import Comparison, Front, Point, compare
from glue_sparse.reports.rate_sweeps import DENSE, Fit, Sweep, fits

_LABEL = {"fontsize": 7, "textcoords": "offset points", "xytext": (4, 4)}


def front(points: Sequence[Point], folder: Path, name: str, title: str) -> list[Path]:
    """Loss over FLOPs: the dense front as a line, sparse points by series; NAME.png and NAME.svg, whose paths return.

    A dotted line from a sparse point goes to the loss of a dense model of equal FLOPs, an arrow to the point comes from
    a dense model of equal loss and bears the FLOPs ratio. Both axes are logarithmic, in which the front is straight.

    Raises:
        ValueError: there is no dense front.
    """
    figure, axis = plots.pyplot().subplots(figsize=(9, 6))
    on_front = Front.of(points).points
    axis.plot([p.flops for p in on_front], [p.loss for p in on_front], "o-", color="black", label="dense")
    behind = [point for point in points if point.family == "dense" and point not in on_front]
    if behind:
        axis.plot([p.flops for p in behind], [p.loss for p in behind], "o", color="black", markerfacecolor="white",
                  label="dense, behind the front")  # fmt: skip
    for point in (*on_front, *behind):
        axis.annotate(point.name.removesuffix(point.series).strip() or point.name, (point.flops, point.loss), **_LABEL)
    compared = compare(points)
    series = list(dict.fromkeys(found.point.series for found in compared))
    for label, colour in zip(series, plots.pyplot().cm.tab10.colors * len(series), strict=False):
        _series(axis, [found for found in compared if found.point.series == label], colour, label)
    _spreads(axis, points)
    _logarithmic(axis, "x")
    _logarithmic(axis, "y")
    axis.set_xlabel("FLOPs of a training sequence")
    axis.set_ylabel("validation loss, nats")
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return plots.write(figure, folder, name)


def _series(axis: Any, compared: Sequence[Comparison], colour: Any, label: str) -> None:
    axis.plot([c.point.flops for c in compared], [c.point.loss for c in compared], "s", color=colour, label=label)
    for found in compared:
        point = found.point
        if found.matched is not None:
            axis.plot([point.flops] * 2, [point.loss, found.matched], ":", color=colour, linewidth=1)
        if found.flops_ratio is not None:
            start = (point.flops / found.flops_ratio, point.loss)
            arrow = {"arrowstyle": "->", "color": colour, "linewidth": 0.8}
            axis.annotate("", (point.flops, point.loss), start, arrowprops=arrow)
            place = {**_LABEL, "xytext": (-6, 0), "ha": "right", "va": "center"}
            axis.annotate(f"{found.flops_ratio:.2f}", (point.flops, point.loss), color=colour, **place)


def _spreads(axis: Any, points: Sequence[Point]) -> None:
    told = [point for point in points if point.std is not None]
    if told:
        x, y, std = [p.flops for p in told], [p.loss for p in told], [p.std for p in told]
        axis.errorbar(x, y, yerr=std, fmt="none", ecolor="grey", capsize=2, zorder=0)


def _logarithmic(axis: Any, which: str) -> None:
    """A logarithmic axis whose numbers can be read: round losses on y, and 1, 2 and 5 of each power of ten on x."""
    getattr(axis, f"set_{which}scale")("log")
    pyplot, one = plots.pyplot(), getattr(axis, f"{which}axis")
    one.set_major_locator(pyplot.MaxNLocator(8) if which == "y" else pyplot.LogLocator(subs=(1, 2, 5)))
    one.set_major_formatter("{x:.4g}")
    one.set_minor_formatter("")


def rate_panels(sweeps: Sequence[Sweep], folder: Path, name: str) -> list[Path]:
    """Loss over learning rate with the cubics, a panel per series, then the best rates over sparsity and over size.

    Hollow points are best rates outside the rates that were tried. Returns the paths of NAME.png and NAME.svg.
    """
    series, found = list(dict.fromkeys(sweep.series for sweep in sweeps)), fits(sweeps)
    overs = [over for over in ("sparsity", "size") if any(fit.over == over for fit in found)]
    count = len(series) + len(overs)
    columns = min(3, count)
    rows = -(-count // columns)
    figure, axes = plots.pyplot().subplots(rows, columns, figsize=(5 * columns, 3.8 * rows), squeeze=False)
    for axis, label in zip(axes.flat, series, strict=False):
        _sweeps(axis, [sweep for sweep in sweeps if sweep.series == label])
        axis.set_title(label, fontsize=9)
    for axis, over in zip(axes.flat[len(series) :], overs, strict=False):
        _fits(axis, [fit for fit in found if fit.over == over], over)
    for axis in axes.flat[count:]:
        axis.remove()
    return plots.write(figure, folder, name)


def _sweeps(axis: Any, sweeps: Sequence[Sweep]) -> None:
    for sweep, colour in zip(sweeps, plots.pyplot().cm.tab10.colors * len(sweeps), strict=False):
        rates, losses = zip(*sorted(sweep.runs), strict=True)
        axis.plot(rates, losses, "o", color=colour, markersize=4, label=sweep.name)
        if sweep.best:
            x = np.geomspace(rates[0], rates[-1], 100)
            axis.plot(x, np.polyval(sweep.best.cubic, np.log(x)), "-", color=colour, linewidth=1)
            face = colour if sweep.best.inside else "white"
            axis.plot(sweep.best.rate, sweep.best.loss, "*", color=colour, markerfacecolor=face, markersize=12)
    _logarithmic(axis, "x")
    axis.set_xlabel("learning rate")
    axis.set_ylabel("validation loss, nats")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


def _fits(axis: Any, found: Sequence[Fit], over: str) -> None:
    for fit, colour in zip(found, plots.pyplot().cm.tab10.colors * len(found), strict=False):
        places = sorted(fit.points)
        x = np.linspace(places[0], places[-1], 100) if over == "sparsity" else np.geomspace(places[0], places[-1], 100)
        axis.plot(places, [fit.points[place] for place in places], "o", color=colour, markersize=4)
        axis.plot(x, [fit.rate(place) for place in x], "-", color=colour, label=f"{fit.what}\n{fit.formula}")
        if over == "sparsity" and 0.0 in fit.points:
            rule = [fit.points[0.0] * factor(place) for place in x]
            axis.plot(x, rule, "--", color=colour, label=f"{DENSE} rate times equation 3")
    _logarithmic(axis, "y")
    axis.set_ylabel("best learning rate")
    if over == "size":
        _logarithmic(axis, "x")
    axis.set_xlabel("sparsity" if over == "sparsity" else "N, active linear weights of the encoder")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=6)
