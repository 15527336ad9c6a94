"""The user's own files as a task: texts, labels, and errors that name the line."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from datasets import Dataset

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.labels import is_marked, label_names, mark_of, name_of, not_finite, number_of
from glue_sparse.tasks.tables import Table, is_unicode, read
from glue_sparse.tasks.text import TextData, build

logger = logging.getLogger(__name__)


def load(name: str, task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
    """The task of --train_file, --validation_file and, to predict, --test_file.

    Label strings or integers make a classification over the training file's labels in sorted order; a label
    with a fraction makes a regression. Rows that `no_label` marks are left out.

    Raises:
        ValueError: anything is missing or malformed; one sentence says what and where.
    """
    files = _files(task, do_predict)
    texts, label = task.text_columns, task.label_column
    if len(texts) not in (1, 2) or label in texts or len(set(texts)) != len(texts):
        raise ValueError(f"text_columns must be one or two, without the label_column, got {', '.join(texts)}")
    wanted = {"train": [*texts, label], "validation": [*texts, label], "test": texts}
    tables = {split: read(path, wanted[split]) for split, path in files.items()}
    mark = mark_of(task.no_label, tables["train"].columns[label])
    for split in ("train", "validation"):
        tables[split] = _without_unlabelled(tables[split], label, mark)
    names = label_names(_labels(tables["train"], label))
    _check_labels(tables["train"], label, names, do_predict)
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


def _rows(table: Table, texts: Sequence[str], label_column: str | None, names: tuple[str, ...]) -> Dataset:
    """The table under the names that `TextData` wants."""
    columns: dict[str, list[Any]] = {}
    for column, text in zip(("text", "text_pair"), texts, strict=False):
        columns[column] = table.columns[text]
        for row, cell in enumerate(table.columns[text]):
            if fault := _fault_of_text(cell, text):
                raise ValueError(f"{table.where(row)}: {fault}")
    if label_column is None:
        columns["index"] = list(range(len(table.lines)))
    else:
        columns["label"] = _targets(table, label_column, names)
    return Dataset.from_dict(columns)


def _fault_of_text(cell: Any, column: str) -> str | None:
    """What is wrong with a cell that should be a text, as the end of a sentence; None when all is well."""
    if cell is None or isinstance(cell, str) and not cell.strip():
        return f"no text in column {column!r}"
    if not isinstance(cell, str):
        kind = next((word for word, kinds in _KINDS.items() if isinstance(cell, kinds)), "something else")
        return f"column {column!r} holds {kind}, not text: write it as text, in quotes, or name other `text_columns`"
    if not is_unicode(cell):
        return f"column {column!r} holds half a character (a lone surrogate, as cut emoji leave it): mend or remove it"
    return None


_KINDS: dict[str, Any] = {
    "true or false": bool, "a number": (int, float, Decimal), "a list": (list, tuple), "an object": dict,
    "bytes": bytes,
}  # fmt: skip


def _without_unlabelled(table: Table, column: str, mark: str | None) -> Table:
    """The table without the rows whose label says that there is none; tells how many they are."""
    kept = [row for row, label in enumerate(table.columns[column]) if not is_marked(label, mark)]
    left_out = len(table.lines) - len(kept)
    if not left_out:
        return table
    if not kept:
        raise ValueError(f"no row of {table.path} has a label in column {column!r}")
    logger.warning("%s: %d of %d rows are left out, since %r in column %r says that they have no label (no_label)",
                   table.path, left_out, len(table.lines), mark, column)  # fmt: skip
    columns = {name: [cells[row] for row in kept] for name, cells in table.columns.items()}
    return replace(table, columns=columns, lines=[table.lines[row] for row in kept])


def _labels(table: Table, column: str) -> list[Any]:
    for row, label in enumerate(table.columns[column]):
        if label is None or label != label or not str(label).strip():
            raise ValueError(f"{table.where(row)}: no label in column {column!r}")
        if isinstance(label, list | tuple | dict | bytes) or isinstance(label, str) and not is_unicode(label):
            raise ValueError(f"{table.where(row)}: the label in column {column!r} is neither text nor a number")
    return table.columns[column]


def _check_labels(table: Table, column: str, names: tuple[str, ...], do_predict: bool) -> None:
    """Raise a ValueError for a label that no regression can have, or that no line of a file of predictions can."""
    if (row := not_finite(table.columns[column])) is not None:
        raise ValueError(f"{table.where(row)}: label {str(table.columns[column][row])!r} is no finite number, and a "
                         "regression needs one")  # fmt: skip
    for name in names if do_predict else ():
        if "\t" in name or len(name.splitlines()) > 1:
            raise ValueError(f"a file of predictions has a line for each, and the label {name!r} holds a tab or a line "
                             "break: rename it, or leave `do_predict` out")  # fmt: skip


def _targets(table: Table, column: str, names: tuple[str, ...]) -> list[Any]:
    """Class indices of the labels, or numbers when there are no `names`."""
    index = {name: i for i, name in enumerate(names)}
    labels = _labels(table, column)
    targets = [index.get(name_of(label)) if names else number_of(label) for label in labels]
    if None in targets:
        row = targets.index(None)
        expected = f"one of the training labels {', '.join(names)}" if names else "a number"
        raise ValueError(f"{table.where(row)}: label {str(labels[row])!r} is not {expected}")
    return targets
