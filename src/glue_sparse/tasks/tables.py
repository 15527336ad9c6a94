"""Tables from files: csv, tsv, JSON lines or parquet, with errors that name the line."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from glue_sparse.writing.characters import check_file, fault_of, utf8
from glue_sparse.writing.fields import json_value
from glue_sparse.writing.words import listed, shown

Row = tuple[int, dict[str, Any]]
"""Line number, counting from 1 and with the header, and the cells by column."""

LONGEST_CELL = 2**31 - 1
"""Characters; the csv module's own limit, 131,072, is shorter than some documents."""


class _Repeated:
    """Stands in a row for the cells of several columns of one name."""


REPEATED = _Repeated()


class Number(str):
    """A number of a JSON file, digit for digit as the file writes it; what quotes are around is text instead."""


@dataclass(frozen=True)
class Table:
    """Some columns of a file, and the line that each row came from."""

    path: Path
    columns: dict[str, list[Any]]
    lines: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    """Lines left out because they have too many or too few fields."""

    def where(self, row: int) -> str:
        """The place of a row in words, for error messages."""
        return f"{self.path}, {'row' if self.path.suffix.lower() == '.parquet' else 'line'} {self.lines[row]}"


def read(path: Path, columns: Sequence[str]) -> Table:
    """The named columns of a file; its ending says the format.

    Raises:
        ValueError: no such file or format, no rows, a missing column or one that occurs twice, a broken row, not UTF-8,
            or a character that no text has.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} has an unknown ending; {', '.join(READERS)} can be read")
    return collect(path, reader, columns)


def read_tsv(
    path: Path,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    header: Sequence[str] | None = None,
    skip_broken: bool = False,
) -> Table:
    """Columns of a tab-separated file without quoting; `header` names its columns when line 1 does not.

    A missing `optional` column is all None. Raises as `read`; `skip_broken` leaves broken rows out instead.
    """
    broken: list[int] = []
    reader = partial(_tsv, header=header, broken=broken if skip_broken else None)
    return replace(collect(path, reader, columns, optional), broken=broken)


def collect(
    path: Path,
    reader: Callable[[Path], Iterator[Row]],
    columns: Sequence[str],
    optional: Sequence[str] = (),
) -> Table:
    """The table of what `reader` yields; see `read` for the errors."""
    check_file(path)
    table = Table(path, {column: [] for column in (*columns, *optional)})
    with utf8(path):
        for line, row in reader(path):
            table.lines.append(line)
            # a header, where there is one, is at fault for all rows
            place = f"{table.where(-1)}," if len(table.lines) > 1 or reader is _json_lines else str(path)
            for column in columns:
                if column not in row:
                    raise ValueError(f"{place} has no column {shown(column)}; found: {listed(row)}")
            for column, cells in table.columns.items():
                cells.append(row.get(column))
                if cells[-1] is REPEATED:
                    raise ValueError(f"{place} has more than one column {shown(column)}: rename all but one")
                if isinstance(cells[-1], str) and (fault := fault_of(cells[-1])):
                    raise ValueError(f"{table.where(-1)}: column {shown(column)} {fault}")
    if not table.lines:
        raise ValueError(f"{path} has no rows")
    return table


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)

        def numbered() -> Iterator[tuple[int, list[str]]]:
            start = 1  # a quoted cell may hold line breaks: a row is where it begins
            for fields in rows:
                yield start, fields
                start = rows.line_num + 1

        try:
            yield from _named(path, numbered())
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num}: not well-formed csv ({error})") from error


def _tsv(path: Path, header: Sequence[str] | None = None, broken: list[int] | None = None) -> Iterator[Row]:
    # only \n ends a line: str.splitlines and csv would also break at characters that occur inside sentences
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        lines = (line.removesuffix("\n").removesuffix("\r") for line in file)
        yield from _named(path, enumerate((line.split("\t") for line in lines), 1), header, broken)


def _named(
    path: Path,
    rows: Iterable[tuple[int, list[str]]],
    header: Sequence[str] | None = None,
    broken: list[int] | None = None,
) -> Iterator[Row]:
    """Name the fields; a row of the wrong length goes to `broken`, or is an error when that is None."""
    for line, fields in rows:
        if header is None:
            header = fields if any(fields) else None
        elif len(fields) == len(header):
            yield line, unlike(zip(header, fields, strict=True))
        elif not any(fields):
            continue  # a blank line
        elif broken is not None:
            broken.append(line)
        else:
            raise ValueError(f"{path}, line {line}: {len(fields)} fields where {len(header)} are expected")


def unlike(cells: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A row, or an object of JSON, with `REPEATED` in the place of what has the name of another."""
    row: dict[str, Any] = {}
    for column, cell in cells:
        row[column] = REPEATED if column in row else cell
    return row


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json_value(text, "a line", object_pairs_hook=unlike, parse_constant=_constant,
                                 parse_float=Number, parse_int=Number)  # fmt: skip
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {line}: not a JSON object; one a line is expected")
            yield line, row


def _constant(word: str) -> Number | None:
    """Python writes NaN for what other writers of JSON call null."""
    return None if word == "NaN" else Number(word)


def _parquet(path: Path) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(path)
        columns = ([column.to_pylist() for column in batch.columns] for batch in file.iter_batches())
        rows = (cells for batch in columns for cells in zip(*batch, strict=True))
        yield from enumerate((unlike(zip(file.schema_arrow.names, cells, strict=True)) for cells in rows), 1)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} holds a text that is not UTF-8: mend it where the file is made") from error
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a parquet file, or is damaged") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}
