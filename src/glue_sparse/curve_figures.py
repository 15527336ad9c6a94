"""Score over sparsity, with the band of the seeds and the drop points marked; loads no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glue_sparse import plots
from glue_sparse.curves import Line
from glue_sparse.drop_point import DropPoint


def draw(found: Sequence[Line], points: Sequence[DropPoint], folder: Path, name: str, title: str) -> list[Path]:
    """A panel per task with a line per method; NAME.png and NAME.svg, whose paths are returned.

    A star marks where a method's mean first falls below the dotted threshold, a bar its interval; a hollow star says
    that the dense runs differ too much, or are too few, for the number to mean much.

    Raises:
        ValueError: nothing to draw.
    """
    if not found:
        raise ValueError("no curve has its dense runs and another point yet")
    columns = list(dict.fromkeys(line.column for line in found))
    methods = list(dict.fromkeys(line.method for line in found))
    width = 5.5 * len(columns)
    figure, axes = plots.pyplot().subplots(1, len(columns), figsize=(width, 4.4), squeeze=False)
    colours = dict(zip(methods, plots.pyplot().cm.tab10.colors * len(methods), strict=False))
    for axis, column in zip(axes[0], columns, strict=True):
        pairs = [(line, point) for line, point in zip(found, points, strict=True) if line.column == column]
        for index, (line, point) in enumerate(pairs):
            _line(axis, line, point, colours[line.method], index)
        thresholds = {point.threshold: colours[line.method] for line, point in pairs}
        for threshold, colour in thresholds.items():  # several where methods have different seeds
            axis.axhline(threshold, linestyle=":", color="black" if len(thresholds) == 1 else colour, linewidth=1)
        _finish(axis, pairs[0][0])
    figure.suptitle(title)
    return plots.write(figure, folder, name)


def _line(axis: Any, line: Line, point: DropPoint, colour: Any, index: int) -> None:
    curve = line.curve
    mean, std = curve.mean, curve.std
    seeds = f"{curve.num_seeds} seed{'s' if curve.num_seeds > 1 else ''}"
    axis.plot(curve.sparsities, mean, "o-", color=colour, markersize=4, label=f"{line.method} ({seeds})")
    if curve.num_seeds > 1:
        axis.fill_between(curve.sparsities, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
    if point.crossing is None:
        return
    sure = point.verdict == "found"
    face = colour if sure else "white"
    axis.plot(point.crossing, point.threshold, "*", color=colour, markerfacecolor=face, markersize=14, zorder=3)
    if point.interval:
        low, high = point.interval
        height = point.threshold - 0.02 * (index + 1) * (axis.get_ylim()[1] - axis.get_ylim()[0])
        axis.plot([low, curve.sparsities[-1] if high is None else high], [height, height], "|-", color=colour)


def _finish(axis: Any, line: Line) -> None:
    share = line.model_share
    axis.set_xlabel("sparsity of the matrices inside the layers")
    whole = axis.secondary_xaxis("top", functions=(lambda x: x * share, lambda x: x / share))
    whole.set_xlabel("of the whole model")
    axis.set_ylabel(f"{line.title} {line.metric}, %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
