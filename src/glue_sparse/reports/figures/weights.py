"""Figures of the weights of checkpoints: the share of small ones over training, and histograms side by side."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glue_sparse.analysis.emergence import EDGES, Histogram, Measured, Small, per_kind, per_layer, total
from glue_sparse.reports.figures import plots

MAX_TICKS = 12
COLUMNS = 4
"""Panels in a row."""


def below(tau: float, relative: bool) -> str:
    """The threshold as an axis says it."""
    return f"|w| < {tau:g}{' std of its matrix' if relative else ''}"


def emergence_curves(measured: Sequence[Measured], relative: bool, folder: Path, name: str) -> list[Path]:
    """Share of small weights over checkpoints: a line per threshold in total, maps of layers and kinds for the first.

    The horizontal axis is the step where all checkpoints have different ones, and else their order.

    Returns:
        The paths of NAME.png and NAME.svg.
    """
    first = next(iter(measured[0].small))
    rows = max(len(group(measured[0].small[first])) for group in (per_layer, per_kind))
    figure, axes = plots.pyplot().subplots(1, 3, figsize=(17, max(4, 1.5 + 0.25 * rows)))
    _lines(axes[0], measured, relative)
    for axis, group, title in zip(axes[1:], (per_layer, per_kind), ("layer", "kind of matrix"), strict=True):
        image = _map(axis, measured, first, group)
        axis.set_title(f"{below(first, relative)}: % of each {title}", fontsize=9)
        figure.colorbar(image, ax=axis)
    return plots.write(figure, folder, name)


def _lines(axis: Any, measured: Sequence[Measured], relative: bool) -> None:
    steps = [found.step for found in measured]
    in_steps = None not in steps and len(set(steps)) == len(steps)
    places = steps if in_steps else list(range(len(measured)))
    # models that are not steps of one training have nothing between them
    style = "-o" if any(step is not None for step in steps) else "o"
    for tau in measured[0].small:
        shares = [100 * total(found.small[tau]).share for found in measured]
        axis.plot(places, shares, style, markersize=4, label=below(tau, relative))
    if not in_steps:
        _name_places(axis, measured)
    axis.set_xlabel("training step" if in_steps else "checkpoint")
    axis.set_ylabel("% of the weights inside layers")
    axis.set_title("small weights in total", fontsize=9)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _map(axis: Any, measured: Sequence[Measured], tau: float, group: Callable[..., dict[str, Small]]) -> Any:
    shares = [{part: 100 * small.share for part, small in group(found.small[tau]).items()} for found in measured]
    rows = list(shares[0])
    cells = np.array([[found[row] for found in shares] for row in rows])
    image = axis.imshow(cells, aspect="auto", interpolation="nearest", cmap="viridis")
    axis.set_yticks(range(len(rows)), [row.removesuffix(".weight") for row in rows], fontsize=7)
    _name_places(axis, measured)
    has_steps = all(found.step is not None for found in measured)
    axis.set_xlabel("training step" if has_steps else "checkpoint")
    return image


def _name_places(axis: Any, measured: Sequence[Measured]) -> None:
    """Steps, or labels where there is none, below the places 0, 1, ...; of many only some."""
    shown = range(0, len(measured), -(-len(measured) // MAX_TICKS))
    labels = [measured[i].label if measured[i].step is None else f"{measured[i].step:,}" for i in shown]
    axis.set_xticks(list(shown), labels, rotation=45, ha="right", fontsize=7)


def histogram_panels(
    labels: Sequence[str], models: Sequence[Mapping[str, Histogram]], folder: Path, name: str
) -> list[Path]:
    """A panel per layer with the densities of its standardised weights, a line per model, heights logarithmic.

    Args:
        labels: what the models are called.
        models: layer -> histogram, for each model; the same layers for all.
    Returns:
        The paths of NAME.png and NAME.svg.
    """
    layers = list(models[0])
    columns = min(COLUMNS, len(layers))
    rows = -(-len(layers) // columns)
    figure, axes = plots.pyplot().subplots(
        rows, columns, figsize=(max(6, 3.5 * columns), 0.8 + 2.6 * rows), sharex=True, sharey=True, squeeze=False
    )
    centres = ((EDGES[1:] + EDGES[:-1]) / 2).numpy()
    for axis, layer in zip(axes.flat, layers, strict=False):
        for label, found in zip(labels, models, strict=True):
            density = found[layer].density.numpy()
            axis.plot(centres, np.where(density > 0, density, np.nan), linewidth=1, label=label)
        axis.set_title(layer, fontsize=8)
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(layers) :]:
        axis.remove()
    for axis in axes.flat[max(0, len(layers) - columns) : len(layers)]:
        axis.tick_params(labelbottom=True)  # also where the panel below was removed
    axes[0, 0].legend(fontsize=7, loc="lower center")
    figure.supxlabel("(w - mean) / std, of the matrices of a layer together", fontsize=9)
    figure.supylabel("density", fontsize=9)
    return plots.write(figure, folder, name)
