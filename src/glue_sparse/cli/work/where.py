"""What `glue-sparse diff where` does."""

from pathlib import Path

from glue_sparse.arguments.registry import imported
from glue_sparse.records import archive
from glue_sparse.reports import where as report
from glue_sparse.reports.figures.masks import placement_bars
from glue_sparse.writing.files import write_text
from glue_sparse.writing.tables import markdown
from glue_sparse.writing.words import short_names

PLACEMENT = "glue_sparse.analysis.density:placement_at"
"""Loads torch, which results alone do not need."""


def where(diffs: list[str], rows: list[str], by: str, name: str | None, results_dir: Path) -> None:
    """Of the entries that each run trained, the share in each part of the model, beside the shares of all entries.

    Entries drawn at random have the shares of all; a head trains whole. With rows, `diffs` are places of a grid's runs.
    """
    if rows:
        found = report.of_rows(archive.read([*map(Path, diffs)]), rows, by)
    else:
        placement_at = imported(PLACEMENT)
        counts = (placement_at(place, by) for place in diffs)
        found = dict(zip(short_names(diffs), counts, strict=True))
    shares = report.columns(found)
    text = markdown(*report.table(shares, by))
    print(text)
    if name:
        paths = [write_text(results_dir / f"{name}.md", f"{text}\n"), *placement_bars(shares, by, results_dir, name)]
        print(f"written: {', '.join(map(str, paths))}")
