"""Tables as text: markdown and CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from glue_sparse.writing.sentences import one_line


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A markdown table with padded columns; what would end a cell or a line, as names of others may, is escaped."""
    header, *lines = [[one_line(cell).replace("|", "\\|") for cell in line] for line in (header, *lines)]
    widths = [max(len(cell) for cell in column) for column in zip(header, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in (header, rule, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def heading(title: str) -> str:
    """The line above a table."""
    return f"## {one_line(title)}"


def csv_text(header: Sequence[str], lines: Iterable[Iterable[Any]]) -> str:
    """A table as CSV, cells as Python writes them; None is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return out.getvalue()
