"""What `glue-sparse diff where` does."""

from collections.abc import Mapping
from pathlib import Path

from glue_sparse.analysis.density import Counts, placement
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.reports.figures.masks import placement_bars
from glue_sparse.writing.files import write_text
from glue_sparse.writing.tables import markdown
from glue_sparse.writing.words import short_names


def where(diffs: list[str], by: str, name: str | None, results_dir: Path) -> None:
    """Of the entries that each run trained, the share in each part of the model, beside the shares of all entries.

    Entries drawn at random have the shares of all; a head trains whole.
    """
    labels = short_names(diffs)
    counts = (placement(SparseDiff.from_pretrained(place), by) for place in diffs)
    found = dict(zip(labels, counts, strict=True))
    columns = _columns(found)
    shares = [[f"{count / max(1, total):.1%}" for count, total in column.values()] for column in columns.values()]
    totals = [f"{next(iter(column.values()))[1]:,}" for column in columns.values()]
    lines = [[key, *line] for key, line in zip(next(iter(found.values())), zip(*shares, strict=True), strict=True)]
    text = markdown((by, *columns), [*lines, ["number of entries", *totals]])
    print(text)
    if name:
        paths = [write_text(results_dir / f"{name}.md", f"{text}\n"), *placement_bars(columns, by, results_dir, name)]
        print(f"written: {', '.join(map(str, paths))}")


def _columns(found: Mapping[str, Counts]) -> dict[str, Counts]:
    """What stands in a column -> part -> (entries there, entries in all): of the model, then of each run.

    Raises:
        ValueError: they are not of one model.
    """
    sizes = {label: {key: entries for key, (_, entries) in counts.items()} for label, counts in found.items()}
    first, *others = sizes
    for other in others:
        if sizes[other] != sizes[first]:
            raise ValueError(f"{first} and {other} have tensors of other sizes: compare runs of one model and task")
    trained = {label: {key: active for key, (active, _) in counts.items()} for label, counts in found.items()}
    columns = {"all entries": sizes[first], **trained}
    return {label: {key: (count, sum(column.values())) for key, count in column.items()}
            for label, column in columns.items()}  # fmt: skip
