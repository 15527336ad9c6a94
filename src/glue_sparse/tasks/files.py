"""The user's own files: csv, tsv, JSON lines or parquet, with errors that name the line."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.text import TextData, build

Row = tuple[int, dict[str, Any]]
"""Line number, counting from 1 and with the header, and the cells by column."""


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
        ValueError: no such file or format, no rows, a missing column, a broken row, or not UTF-8.
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
    if not path.is_file():
        raise ValueError(f"{path} does not exist or is not a file")
    table = Table(path, {column: [] for column in (*columns, *optional)})
    try:
        for line, row in reader(path):
            for column in columns:
                if column not in row:
                    place = f"{path}, line {line}," if table.lines else path
                    raise ValueError(f"{place} has no column {column!r}; found: {', '.join(row)}")
            for column, cells in table.columns.items():
                cells.append(row.get(column))
            table.lines.append(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text") from error
    if not table.lines:
        raise ValueError(f"{path} has no rows")
    return table


def _csv(path: Path) -> Iterator[Row]:
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
            header = fields
        elif len(fields) == len(header):
            yield line, dict(zip(header, fields, strict=True))
        elif not any(fields):
            continue  # a blank line
        elif broken is not None:
            broken.append(line)
        else:
            raise ValueError(f"{path}, line {line}: {len(fields)} fields where {len(header)} are expected")


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError:
                row = None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {line}: not a JSON object; one a line is expected")
            yield line, row


def _parquet(path: Path) -> Iterator[Row]:
    try:
        batches = pq.ParquetFile(path).iter_batches()
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a parquet file") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}


def load(name: str, task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
    """The task of --train_file, --validation_file and, to predict, --test_file.

    Label strings or integers make a classification over the training file's labels in sorted order; a label
    with a fraction makes a regression.

    Raises:
        ValueError: anything is missing or malformed; one sentence says what and where.
    """
    files = _files(task, do_predict)
    texts, label = task.text_columns, task.label_column
    if len(texts) not in (1, 2) or label in texts or len(set(texts)) != len(texts):
        raise ValueError(f"text_columns must be one or two, without the label_column, got {', '.join(texts)}")
    wanted = {"train": [*texts, label], "validation": [*texts, label], "test": texts}
    tables = {split: read(path, wanted[split]) for split, path in files.items()}
    names = label_names(_labels(tables["train"], label))
    if len(names) == 1:
        raise ValueError(f"every row of {files['train']} has the label {names[0]}; there is nothing to learn")
    data = TextData(
        name=name,
        title=files["train"].stem,
        splits={
            split: _rows(table, texts, None if split == "test" else label, names)
            for split, table in tables.items()
        },
        labels=names,
        metrics=("accuracy",) if names else ("pearson", "spearmanr"),
        source={
            "kind": "file",
            "name": files["train"].name,
            "files": {split: path.name for split, path in files.items()},
        },
        prediction_files={"test": "predictions_test.tsv"},
    )
    return build(data, task, model, seed)


def _files(task: TaskArguments, do_predict: bool) -> dict[str, Path]:
    paths = {"train": task.train_file, "validation": task.validation_file}
    if do_predict:
        paths["test"] = task.test_file
    for split, path in paths.items():
        if path is None:
            raise ValueError(f"the {split} data of `task` file is missing: give `{split}_file`")
    return {split: Path(path) for split, path in paths.items() if path is not None}


def label_names(labels: Sequence[Any]) -> tuple[str, ...]:
    """Sorted names of the classes, numbers in numerical order; empty when the labels are a regression's."""
    numbers = [number for number in map(_number, labels) if number is not None]
    if len(numbers) < len(labels):
        return tuple(sorted({_name(label) for label in labels}))
    if all(number.is_integer() for number in numbers):
        return tuple(str(number) for number in sorted({int(number) for number in numbers}))
    return ()


def _rows(table: Table, texts: Sequence[str], label_column: str | None, names: tuple[str, ...]) -> Dataset:
    """The table under the names that `TextData` wants."""
    columns: dict[str, list[Any]] = {}
    for column, text in zip(("text", "text_pair"), texts, strict=False):
        columns[column] = table.columns[text]
        for row, cell in enumerate(table.columns[text]):
            if not isinstance(cell, str) or not cell.strip():
                raise ValueError(f"{table.where(row)}: no text in column {text!r}")
    if label_column is None:
        columns["index"] = list(range(len(table.lines)))
    else:
        columns["label"] = _targets(table, label_column, names)
    return Dataset.from_dict(columns)


def _labels(table: Table, column: str) -> list[Any]:
    for row, label in enumerate(table.columns[column]):
        if label is None or label != label or not str(label).strip():
            raise ValueError(f"{table.where(row)}: no label in column {column!r}")
    return table.columns[column]


def _targets(table: Table, column: str, names: tuple[str, ...]) -> list[Any]:
    """Class indices of the labels, or numbers when there are no `names`."""
    index = {name: i for i, name in enumerate(names)}
    labels = _labels(table, column)
    targets = [index.get(_name(label)) if names else _number(label) for label in labels]
    if None in targets:
        row = targets.index(None)
        expected = f"one of the training labels {', '.join(names)}" if names else "a number"
        raise ValueError(f"{table.where(row)}: label {str(labels[row])!r} is not {expected}")
    return targets


def _number(label: Any) -> float | None:
    try:
        number = float(label)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(label, bool) else None


def _name(label: Any) -> str:
    number = _number(label)
    return str(label).strip() if number is None or not number.is_integer() else str(int(number))
