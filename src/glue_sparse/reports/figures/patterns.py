"""Figures of runs whose active entries move: their updates, where tiles were active, and losses; loads no model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glue_sparse.methods.moving.pattern_file import one_of, patterns
from glue_sparse.records.results import Result
from glue_sparse.reports.figures import plots
from glue_sparse.writing.fields import typed

UPDATES = {
    "explored": "entries that have been active, mean over tensors, %",
    "fraction": "pruning ratio, %",
    "removed_new_of_new": "of the tiles just grown, share removed at once, %",
    "removed_new_of_removed": "of the tiles removed, share just grown, %",
}
"""What `Result.connections` says of each update -> the label of its axis."""

LOSS = "mlm_loss"
"""How the names of logged losses end; before it, `eval_` and the split."""


def update_curves(runs: Mapping[str, Result], folder: Path, name: str) -> list[Path]:
    """Explored share, pruning ratio and share of removed new tiles at each update (Dietrich et al., 2021, figure 5).

    Raises:
        ValueError: a run without updates.
    """
    pyplot = plots.pyplot()
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), sharex=True)
    for label, run in runs.items():
        updates = run.connections.get("updates")
        if not updates:
            raise ValueError(f"{label}, a run of {run.method}, has no updates: give runs whose active entries move")
        updates = typed(list[dict[str, float | None]], updates, f"the updates of {label}")
        for axis, key in zip(axes.flat, UPDATES, strict=True):
            points = [(update["step"], 100 * share) for update in updates
                      if "step" in update and (share := update.get(key)) is not None]  # fmt: skip
            axis.plot([x for x, _ in points], [y for _, y in points], label=label)
    for axis, title in zip(axes.flat, UPDATES.values(), strict=True):
        axis.set_title(title, fontsize=9)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("optimizer step")
    axes[0, 1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
    return plots.write(figure, folder, name)


def loss_curves(runs: Mapping[str, Result], folder: Path, name: str) -> list[Path]:
    """Masked-LM losses of evaluations over optimizer steps, a line per run and split.

    Raises:
        ValueError: a run that logged no such loss.
    """
    lines = {label: losses(run) for label, run in runs.items()}
    for label, found in lines.items():
        if not found:
            raise ValueError(f"{label} logged no masked-LM loss: give runs of `task` masked_lm with `eval_strategy`")
    splits = list(dict.fromkeys(split for found in lines.values() for split in found))
    figure, axis = plots.pyplot().subplots(figsize=(9, 4.5))
    for label, found in lines.items():
        for split, points in found.items():
            line = f"{label}, {split}" if len(splits) > 1 else label
            axis.plot([x for x, _ in points], [y for _, y in points], marker=".", label=line)
    axis.set_xlabel("optimizer step")
    axis.set_ylabel("masked-LM loss" if len(splits) > 1 else f"masked-LM loss, {splits[0]}")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
    return plots.write(figure, folder, name)


def losses(run: Result) -> dict[str, list[tuple[float, float]]]:
    """Split -> (optimizer step, masked-LM loss) of its evaluations, one per step."""
    found: dict[str, dict[float, float]] = {}
    for key in dict.fromkeys(key for log in run.history for key in log):
        if key.startswith("eval_") and key.endswith(LOSS):
            split = key.removeprefix("eval_").removesuffix(LOSS).strip("_") or "validation"
            found.setdefault(split, {}).update(run.logged(key))
    return {split: sorted(points.items()) for split, points in found.items() if points}


def pattern_images(
    runs: Mapping[str, tuple[Path, Result]], folder: Path, name: str, tensor: str | None = None
) -> list[Path]:
    """How long each tile of one tensor was active, an image per run, and bars of what each tensor has explored.

    Bright rows or columns of an image are outputs or inputs on which growth has concentrated (Dietrich et al., 2021,
    figure 11). All images have one scale of colours.

    Args:
        runs: label -> the run's folder and its result.
        tensor: name, or a shell pattern for one; by default the FFN's first matrix in the second block.
    Raises:
        ValueError: no patterns in a run's folder, or not exactly one such tensor.
    """
    counts = {label: patterns(place) for label, (place, _) in runs.items()}
    names = {label: one_of({n: t.shape for n, t in found.items()}, tensor) for label, found in counts.items()}
    images = {label: counts[label][chosen] for label, chosen in names.items()}
    most = max(1, *(int(image.max()) for image in images.values()))
    figure = plots.pyplot().figure(figsize=(max(9, 1 + 3.5 * len(runs)), 9))
    places = figure.add_gridspec(2, len(runs) + 1, width_ratios=[*[1] * len(runs), 0.05])
    for column, (label, image) in enumerate(images.items()):
        axis = figure.add_subplot(places[0, column])
        shown = axis.imshow(image, vmin=0, vmax=most, cmap="viridis", interpolation="nearest", aspect="auto")
        axis.set_title(f"{label}\n{names[label]}", fontsize=7)
        axis.set_xlabel("tile of inputs", fontsize=8)
        axis.set_ylabel("tile of outputs" if column == 0 else "", fontsize=8)
        if column == len(runs) - 1:
            figure.colorbar(shown, cax=figure.add_subplot(places[0, -1]), label="intervals that a tile was active in")
    shares = {label: typed(dict[str, float], run.connections.get("explored", {}), f"what {label} has explored")
              for label, (_, run) in runs.items()}  # fmt: skip
    _explored_bars(figure.add_subplot(places[1, :]), shares)
    return plots.write(figure, folder, name)


def _explored_bars(axis: Any, shares: Mapping[str, Mapping[str, float]]) -> None:
    names = list(dict.fromkeys(name for found in shares.values() for name in found))
    width, places = 0.8 / len(shares), np.arange(len(names))
    for index, (label, found) in enumerate(shares.items()):
        offset = (index - (len(shares) - 1) / 2) * width
        axis.bar(places + offset, [100 * found.get(name, 0.0) for name in names], width, label=label)
    axis.set_xticks(places, names, rotation=90, fontsize=5)
    axis.set_ylabel("entries that have been active, %")
    axis.set_ylim(0, 100)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=7)
