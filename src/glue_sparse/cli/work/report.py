"""What `glue-sparse report` does; loads no model, but what writes and draws pages."""

from pathlib import Path

from glue_sparse.records import archive, claims
from glue_sparse.reports.claims.verdicts import decided
from glue_sparse.reports.page import render
from glue_sparse.writing.files import write_text


def write(places: list[Path], out: Path, title: str) -> None:
    """Read all runs and write their page."""
    entries = archive.read(places)
    path = write_text(out, render.html(entries, title, decided(claims.read(), entries)))
    print(f"written: {path}, {path.stat().st_size / 1e6:.1f} MB about {len(entries)} runs")
