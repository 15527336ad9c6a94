"""Score over sparsity, with the band of the seeds and the drop points marked; loads no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glue_sparse.analysis.drop_point import DropPoint, drop_point
from glue_sparse.reports.curves import Line
from glue_sparse.reports.figures import plots


def draw(found: Sequence[Line], eps: float, relative: bool, folder: Path, name: str, title: str) -> list[Path]:
    """A panel per task with a line per method; NAME.png and NAME.svg, whose paths are returned.

    A star marks where a method's mean first falls below the dotted threshold, a bar its interval; a hollow star says
    that the dense runs differ too much, or are too few, for the number to mean much. Single rows are crosses.

    Args:
        eps: the drop that counts, as in `drop_point`.
        relative: eps is percent of the dense score.
    Raises:
        ValueError: nothing to draw.
    """
    if not found:
        raise ValueError("no curve has its dense runs and another point yet")
    columns = list(dict.fromkeys(line.column for line in found))
    methods = list(dict.fromkeys(line.method for line in found))
    figure, axes = plots.pyplot().subplots(1, len(columns), figsize=(5.5 * len(columns), 4.4), squeeze=False)
    colours = dict(zip(methods, plots.pyplot().cm.tab10.colors * len(methods), strict=False))
    for axis, column in zip(axes[0], columns, strict=True):
        here = [line for line in found if line.column == column]
        points = {line.method: drop_point(line.curve, eps, relative=relative) for line in here if line.is_sweep}
        thresholds = {point.threshold: colours[method] for method, point in points.items()}
        for threshold, colour in thresholds.items():  # several where methods have different seeds
            axis.axhline(threshold, linestyle=":", color="black" if len(thresholds) == 1 else colour, linewidth=1)
        for line in here:
            _line(axis, line, colours[line.method])
        for index, (method, point) in enumerate(points.items()):
            _drop(axis, point, max(line.curve.sparsities[-1] for line in here), colours[method], index)
        _finish(axis, here[0])
    figure.suptitle(f"{title}, {', '.join(dict.fromkeys(line.model for line in found))}")
    return plots.write(figure, folder, name)


def _line(axis: Any, line: Line, colour: Any) -> None:
    curve = line.curve
    x, mean, std = np.array(curve.sparsities), curve.mean, curve.std
    label = f"{line.method} ({curve.num_seeds} seed{'s' if curve.num_seeds > 1 else ''})"
    if not line.is_sweep:
        error = std[1:] if curve.num_seeds > 1 else None
        axis.errorbar(x[1:], mean[1:], yerr=error, fmt="X", color=colour, label=label, capsize=3)
        return
    axis.plot(x, mean, "o-", color=colour, markersize=4, label=label)
    if curve.num_seeds > 1:
        axis.fill_between(x, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)


def _drop(axis: Any, point: DropPoint, last: float, colour: Any, index: int) -> None:
    if point.crossing is None:
        return
    face = colour if point.verdict == "found" else "white"
    axis.plot(point.crossing, point.threshold, "*", color=colour, markerfacecolor=face, markersize=14, zorder=3)
    if point.interval:
        low, high = point.interval
        height = point.threshold - 0.02 * (index + 1) * (axis.get_ylim()[1] - axis.get_ylim()[0])
        axis.plot([low, last if high is None else high], [height, height], "-", color=colour)
        axis.plot([low] if high is None else [low, high], [height] * (1 if high is None else 2), "|", color=colour)


def _finish(axis: Any, line: Line) -> None:
    share = line.model_share
    axis.set_xlabel("sparsity of the matrices inside the layers")
    whole = axis.secondary_xaxis("top", functions=(lambda x: x * share, lambda x: x / share))
    whole.set_xlabel("of the whole model")
    axis.set_ylabel(f"{line.title} {line.metric}, %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
