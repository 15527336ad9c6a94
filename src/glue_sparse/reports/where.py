"""Which share of the entries that runs trained lies in which part of the model, side by side; loads no model."""

from collections.abc import Iterator, Mapping, Sequence

from glue_sparse.analysis.parts import Counts, ordered
from glue_sparse.records.archive import Entry
from glue_sparse.records.results import Result
from glue_sparse.writing.words import check_one_of

ALL = "all entries"
"""Column of the model's own shares, which entries drawn at random have."""


def of_rows(entries: Sequence[Entry], rows: Sequence[str], by: str) -> dict[str, Counts]:
    """Row -> what its runs trained, summed over all its columns and seeds.

    Args:
        entries: of one grid.
        by: `part`, `layer` or `kind`.
    Raises:
        ValueError: there is no such row, or all its runs are of before entries were counted by tensor; such runs do
            not count.
    """
    found, known = dict[str, Counts](), dict.fromkeys(entry.row for entry in entries)
    for row in rows:
        check_one_of("row", row, known, otherwise="see `glue-sparse table show`")
        runs = [entry.result for entry in entries if entry.row == row and entry.result.active_by_tensor]
        if not runs:
            raise ValueError(f"no run of row {row} says where its entries lie, since they are older: give diffs")
        found[row] = ordered((one for run in runs for one in _tensors(run)), by)
    return found


def _tensors(run: Result) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names of tensors and their (active, all) entries; `costs.by_tensor` says how a result has them."""
    for kind, numbered in run.active_by_tensor.items():
        first, *rest = kind.split("*")
        for numbers, (active, entries) in numbered.items():
            parts = zip(numbers.split(".") if rest else (), rest, strict=True)
            yield first + "".join(number + text for number, text in parts), (active, entries)


def columns(found: Mapping[str, Counts]) -> dict[str, Counts]:
    """What stands in a column -> part -> (entries there, entries in all): of the model, then of each label.

    Raises:
        ValueError: they are not of one model.
    """
    shares = {label: {key: entries for key, (_, entries) in counts.items()} for label, counts in found.items()}
    shares = {label: _of_all(sizes) for label, sizes in shares.items()}
    first, *others = shares
    for other in others:
        if _fractions(shares[other]) != _fractions(shares[first]):
            raise ValueError(f"{first} and {other} have tensors of other sizes: compare runs of one model and task")
    trained = {label: {key: active for key, (active, _) in counts.items()} for label, counts in found.items()}
    return {ALL: shares[first], **{label: _of_all(counts) for label, counts in trained.items()}}


def _of_all(counts: Mapping[str, int]) -> Counts:
    total = sum(counts.values())
    return {key: (count, total) for key, count in counts.items()}


def _fractions(shares: Counts) -> dict[str, float]:
    """Equal for one model, whatever the number of runs that were summed."""
    return {key: round(count / max(1, total), 6) for key, (count, total) in shares.items()}


def table(shares: Mapping[str, Counts], by: str) -> tuple[list[str], list[list[str]]]:
    """Header and lines, a part each, and in the last line the number of entries; see `columns`."""
    texts = [[f"{count / max(1, total):.1%}" for count, total in column.values()] for column in shares.values()]
    lines = [[key, *line] for key, line in zip(next(iter(shares.values())), zip(*texts, strict=True), strict=True)]
    totals = [f"{next(iter(column.values()))[1]:,}" for column in shares.values()]
    return [by, *shares], [*lines, ["number of entries", *totals]]
