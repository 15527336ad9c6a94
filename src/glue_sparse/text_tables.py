"""Tables as text: markdown and CSV."""

from collections.abc import Sequence


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A markdown table with padded columns."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in (header, rule, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
