"""The user's own files as a task: texts, labels, and errors that name the line."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from datasets import Dataset

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.labelled import Problem, settle, targets, without_missing, words_of
from glue_sparse.tasks.labels import no_label
from glue_sparse.tasks.tables import Number, Table, read
from glue_sparse.tasks.text import TextData, build
from glue_sparse.writing.words import listed, shown


def load(name: str, task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
    """The task of --train_file, --validation_file and, to predict, --test_file.

    Labels are words. Where all of the training file are numbers and one has a fraction, it is a regression; else a
    classification over the training file's labels in sorted order. `problem` says which where both can be.

    Raises:
        ValueError: anything is missing or malformed; one sentence says what and where.
    """
    files = _files(task, do_predict)
    texts, label = task.text_columns, task.label_column
    if len(texts) not in (1, 2) or label in texts or len(set(texts)) != len(texts):
        raise ValueError(f"`text_columns` must be one or two, without the `label_column`, got {listed(texts)}")
    wanted = {"train": [*texts, label], "validation": [*texts, label], "test": texts}
    tables = {split: read(path, wanted[split]) for split, path in files.items()}
    is_missing = no_label(task.no_label, words_of(tables["train"], label))
    drop, left_out = task.missing_labels == "drop", dict[str, int]()
    for split in ("train", "validation"):
        tables[split], left_out[split] = without_missing(tables[split], label, is_missing, drop)
    problem = settle(tables["train"], label, task.problem)
    _check_names(problem.classes if do_predict else ())
    data = TextData(
        name=name,
        title=files["train"].stem,
        splits={
            split: _rows(table, texts, None if split == "test" else label, problem) for split, table in tables.items()
        },
        labels=problem.classes,
        metrics=("accuracy",) if problem.classes else ("pearson", "spearmanr"),
        source={
            "kind": "file",
            "name": files["train"].name,
            "files": {split: path.name for split, path in files.items()},
            "problem": problem.kind,
            **({"without_label": left_out} if any(left_out.values()) else {}),
        },
        prediction_files={"test": "predictions_test.tsv"},
    )
    return build(data, task, model, seed)


def _files(task: TaskArguments, do_predict: bool) -> dict[str, Path]:
    paths = {"train": task.train_file, "validation": task.validation_file}  # its record needs both
    if do_predict:
        if task.test_file is None:
            raise ValueError("the data to predict are missing: give `test_file`")
        paths["test"] = task.test_file
    return {split: Path(path) for split, path in paths.items() if path is not None}


def _rows(table: Table, texts: Sequence[str], label_column: str | None, problem: Problem) -> Dataset:
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
        columns["label"] = targets(table, label_column, problem)
    return Dataset.from_dict(columns)


def _fault_of_text(cell: Any, column: str) -> str | None:
    """What is wrong with a cell that should be a text, as the end of a sentence; None when all is well."""
    if cell is None or isinstance(cell, str) and not cell.strip():
        return f"no text in column {shown(column)}"
    if not isinstance(cell, str) or isinstance(cell, Number):
        kind = next((word for word, kinds in _KINDS.items() if isinstance(cell, kinds)), "something else")
        return f"column {shown(column)} holds {kind}, not text: write it in quotes, or name other `text_columns`"
    return None


_KINDS: dict[str, Any] = {
    "true or false": bool, "a number": (int, float, Decimal, Number), "a list": (list, tuple), "an object": dict,
    "bytes": bytes,
}  # fmt: skip


def _check_names(classes: Sequence[str]) -> None:
    """Raise a ValueError for a class that no line of a file of predictions can hold."""
    for name in classes:
        if "\t" in name or len(name.splitlines()) > 1:
            raise ValueError(f"a file of predictions has a line for each, and the label {shown(name)} holds a tab or a "
                             "line break: rename it, or leave `do_predict` out")  # fmt: skip
