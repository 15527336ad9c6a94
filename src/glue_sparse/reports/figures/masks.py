"""Figures of masks: where they have their entries, and how far they agree."""

from collections.abc import Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glue_sparse.reports.figures import plots

if TYPE_CHECKING:
    from glue_sparse.analysis.parts import Counts
    from glue_sparse.analysis.similarity import Similarity


def density_bars(
    by_layer: Mapping[str, "Counts"], by_kind: Mapping[str, "Counts"], folder: Path, name: str
) -> list[Path]:
    """Bars of the active share per layer and per kind of tensor, one colour per label; returns the files' paths.

    Args:
        by_layer, by_kind: label of a diff -> what is counted -> (active, all) entries.
    """
    height = 1 + 0.3 * max(len(next(iter(part.values()))) for part in (by_layer, by_kind))
    figure, axes = plots.pyplot().subplots(1, 2, figsize=(13, height))
    for axis, found, title in zip(axes, (by_layer, by_kind), ("layer", "kind of tensor"), strict=True):
        _bars(axis, found)
        axis.set_title(f"active share per {title}")
    axes[0].legend()
    return plots.write(figure, folder, name)


def placement_bars(shares: Mapping[str, "Counts"], by: str, folder: Path, name: str) -> list[Path]:
    """Bars of where entries lie, one colour per label; returns the files' paths.

    Args:
        shares: label of a diff -> part of the model -> (entries there, entries in all).
        by: what parts are.
    """
    rows = len(next(iter(shares.values())))
    figure, axis = plots.pyplot().subplots(figsize=(7, 1 + 0.12 * rows * (1 + len(shares))))
    _bars(axis, shares)
    axis.set_xlabel("% of the entries that train, and of all")
    axis.set_ylabel(by)
    axis.legend(fontsize=8)
    return plots.write(figure, folder, name)


def similarity_map(
    names: Sequence[str], pairs: Mapping[tuple[str, str], "Similarity"], folder: Path, name: str
) -> list[Path]:
    """Heat maps of how far masks agree: the chance-corrected cosine, and the overlap of what they prune.

    Args:
        names: of the masks, in the order of rows and columns.
        pairs: (name, name) -> similarity, each pair in one order.
    """
    figure, axes = plots.pyplot().subplots(1, 2, figsize=(4 + 1.6 * len(names), 2 + 0.7 * len(names)))
    titles = {"corrected": "cosine, corrected for chance", "pruned_overlap": "overlap of the pruned weights"}
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        values = [[_agreement(pairs, one, other, key) for other in names] for one in names]
        axis.imshow(values, vmin=0, vmax=1, cmap="viridis")
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                text, colour = "-" if isnan(value) else f"{value:.2f}", "black" if not value <= 0.6 else "white"
                axis.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_title(title, fontsize=10)
    return plots.write(figure, folder, name)


def _agreement(pairs: Mapping[tuple[str, str], "Similarity"], one: str, other: str, key: str) -> float:
    if one == other:
        return 1.0
    value = getattr(pairs[one, other] if (one, other) in pairs else pairs[other, one], key)
    return nan if value is None else value


def _bars(axis: Any, found: Mapping[str, "Counts"]) -> None:
    parts = list(dict.fromkeys(part for counts in found.values() for part in counts))
    width, rows = 0.8 / len(found), range(len(parts))
    for index, (label, counts) in enumerate(found.items()):
        shares = [100 * active / max(1, entries) for active, entries in (counts.get(part, (0, 0)) for part in parts)]
        offset = (index - (len(found) - 1) / 2) * width
        axis.barh([row + offset for row in rows], shares, width, label=label)
    axis.set_yticks(rows, parts, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("% of the entries")
    axis.grid(axis="x", alpha=0.3)
