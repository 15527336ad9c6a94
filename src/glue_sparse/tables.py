"""Tables from result files; imports no model."""

from collections.abc import Sequence

from glue_sparse.results import Result

HEADER = ("task", "method", "density", "score", "metric", "trainable weights", "of all", "stored bytes", "train s")


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One line of text cells per run, as in `HEADER`; scores in percent."""
    return [
        (
            result.title,
            result.method,
            f"{result.density:g}" if result.density is not None else "-",
            f"{100 * result.score:.2f}",
            result.main_metric,
            f"{result.cost['trainable']:,}",
            f"{result.cost['density']:.3%}",
            f"{result.cost['stored_bytes']:,}",
            f"{result.seconds['train'] + result.seconds['choose']:.0f}",
        )
        for result in results
    ]


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A markdown table with padded columns."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in (header, rule, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
