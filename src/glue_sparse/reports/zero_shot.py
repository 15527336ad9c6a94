"""Perplexities of models pruned without training, as a table, CSV and figure."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from glue_sparse.reports.figures import plots
from glue_sparse.writing import files as whole_files
from glue_sparse.writing.tables import csv_text, heading, markdown

if TYPE_CHECKING:
    from glue_sparse.analysis.zero_shot import Point

DENSE = "dense"
"""How the column of the model is called in which nothing is pruned."""


def table(points: Sequence["Point"]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: one line per sparsity asked for, one column per criterion."""
    criteria = {point.criterion: point.distribution for point in points if not point.is_dense}
    header = ["asked", "pruned of the matrices", "of the whole model"]
    header += [f"{criterion} ({distribution})" for criterion, distribution in criteria.items()] or [DENSE]
    lines = []
    for asked in dict.fromkeys(point.asked for point in points):
        here = {point.criterion: point for point in points if point.asked == asked}
        shares = [[f"{share:.2%}" for share in (point.sparsity, point.model_sparsity)] for point in here.values()]
        cells = [here.get(criterion, here.get(DENSE)) for criterion in criteria or (DENSE,)]
        texts = [f"{point.found.perplexity:,.2f}" if point else "-" for point in cells]
        # criteria differ where rows or groups are rounded each on their own
        lines.append([asked, *(" / ".join(dict.fromkeys(column)) for column in zip(*shares, strict=True)), *texts])
    return header, lines


def as_csv(points: Sequence["Point"]) -> str:
    """One line per point, numbers in full."""
    rows = [{k: v for k, v in asdict(point).items() if k != "found"} | asdict(point.found) for point in points]
    return csv_text([*rows[0]], (row.values() for row in rows))


def write(points: Sequence["Point"], folder: Path, name: str, title: str, captions: Sequence[str]) -> list[Path]:
    """Write NAME.md, NAME.csv, NAME.png and NAME.svg; returns their paths."""
    text = "\n\n".join([heading(title), markdown(*table(points)), "\n".join(f"* {line}" for line in captions)])
    figure, axis = plots.pyplot().subplots(figsize=(6, 4))
    dense = [point for point in points if point.is_dense]
    for criterion in dict.fromkeys(point.criterion for point in points if not point.is_dense) or (DENSE,):
        own = [point for point in points if point.criterion == criterion]
        line = own if criterion == DENSE else [*dense, *own]
        x, y = [100 * point.sparsity for point in line], [point.found.perplexity for point in line]
        axis.plot(x, y, marker="o", label=f"{criterion} ({own[0].distribution})" if own[0].distribution else criterion)
    axis.set_yscale("log")
    axis.set_xlabel("pruned weights, % of the matrices inside the layers")
    axis.set_ylabel("pseudo-perplexity" if points[0].found.kind == "masked" else "perplexity")
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    drawn = plots.write(figure, folder, name)
    texts = {"md": text + "\n", "csv": as_csv(points)}
    written = whole_files.write_texts({folder / f"{name}.{ending}": content for ending, content in texts.items()})
    return [*written, *drawn]
