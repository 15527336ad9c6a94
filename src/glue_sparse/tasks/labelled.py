"""The label column of a user's own file: rows that have none, and whether the others are classes or numbers."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from glue_sparse.tasks import labels
from glue_sparse.tasks.tables import Table
from glue_sparse.writing.words import listed, shown

logger = logging.getLogger(__name__)

Kind = Literal["classification", "regression"]


@dataclass(frozen=True)
class Problem:
    """What the labels of the training file are.

    Attributes:
        classes: in the order of the model's outputs; none for a regression.
    """

    kind: Kind
    classes: tuple[str, ...] = ()


def words_of(table: Table, column: str) -> list[str]:
    """The labels as words, empty where there is none.

    Raises:
        ValueError: a label is a list, an object or bytes.
    """
    for row, cell in enumerate(table.columns[column]):
        if isinstance(cell, list | tuple | dict | bytes):
            raise ValueError(f"{table.where(row)}: the label in column {shown(column)} is neither text nor a number")
        if isinstance(cell, str) and "\ufeff" in cell:
            raise ValueError(f"{table.where(row)}: the label in column {shown(column)} holds a byte-order mark, as "
                             "files that were joined have: remove it")  # fmt: skip
    return [labels.word_of(cell) for cell in table.columns[column]]


def without_missing(table: Table, column: str, is_missing: Callable[[str], bool], drop: bool) -> tuple[Table, int]:
    """The table without the rows that have no label, and how many they are, which is told.

    Args:
        is_missing: whether a word says that there is no label.
        drop: whether such rows may be left out.
    Raises:
        ValueError: there are some and they may not, or nothing would be left.
    """
    words = words_of(table, column)
    lacking = [row for row, word in enumerate(words) if is_missing(word)]
    if not lacking:
        return table, 0
    first, place = words[lacking[0]], f"no label in column {shown(column)}"
    if not drop:
        raise ValueError(f"{table.where(lacking[0])}: {place}{f', which says {shown(first)}' if first else ''} "
                         f"({len(lacking)} of {len(words)} rows): give them one, or leave them out by `missing_labels` "
                         f"drop{'; where it is a class, name another `no_label`' if first else ''}")  # fmt: skip
    if len(lacking) == len(words):
        raise ValueError(f"no row of {table.path} has a label in column {shown(column)}")
    logger.warning("%s: %d of %d rows are left out, since they have no label in column %s",
                   table.path, len(lacking), len(words), shown(column))  # fmt: skip
    kept = sorted({*range(len(words))}.difference(lacking))
    columns = {name: [cells[row] for row in kept] for name, cells in table.columns.items()}
    return replace(table, columns=columns, lines=[table.lines[row] for row in kept]), len(lacking)


def settle(table: Table, column: str, told: Kind | None) -> Problem:
    """What to learn from the training file's labels: numbers with a fraction are a regression, others are classes.

    Says what it took where it could have been the other too.

    Args:
        told: what the user says that it is.
    Raises:
        ValueError: there are fractions and words, so it can be either, or numbers that no model can hold.
    """
    words = words_of(table, column)
    fractions = [row for row, word in enumerate(words) if labels.is_fraction(word)]
    others = [row for row, word in enumerate(words) if labels.number_of(word) is None]
    if told is None and fractions and others:
        raise ValueError(f"{table.where(others[0])}: label {shown(words[others[0]])} is no number, but "
                         f"{_place(table, fractions[0])} has {shown(words[fractions[0]])}: correct it, or say by "
                         "`problem` whether labels are numbers (regression) or names (classification)")  # fmt: skip
    if told == "regression" or told is None and fractions:
        problem = Problem("regression")
        targets(table, column, problem)
    else:
        problem = Problem("classification", labels.classes_of(words))
    if told is None and len(others) < len(words):
        _tell(problem, table, column, (fractions or others or [None])[0])
    return problem


def _tell(problem: Problem, table: Table, column: str, decided: int | None) -> None:
    """Say how numbers were taken; none decided where all are whole."""
    taken = f"{len(problem.classes)} classes ({listed(problem.classes)})" if problem.classes else "numbers (regression)"
    why = "all numbers in it are whole"
    if decided is not None:
        why = f"{_place(table, decided)} has {shown(labels.word_of(table.columns[column][decided]))}"
    logger.warning("%s: column %s is taken for %s, since %s; `problem` can say otherwise",
                   table.path, shown(column), taken, why)  # fmt: skip


def targets(table: Table, column: str, problem: Problem) -> list[int] | list[float]:
    """Class indices of the labels, or numbers for a regression.

    Raises:
        ValueError: a label is no class of the training file, or no number that a model can hold.
    """
    words = words_of(table, column)
    if problem.kind == "regression":
        return [_number(word, f"{table.where(row)}: label {shown(word)}") for row, word in enumerate(words)]
    index = {name: i for i, name in enumerate(problem.classes)}
    found: list[int] = []
    for row, word in enumerate(words):
        if (number := index.get(labels.class_of(word))) is None:
            raise ValueError(f"{table.where(row)}: label {shown(word)} is not one of the training labels "
                             f"{listed(problem.classes)}")  # fmt: skip
        found.append(number)
    return found


def _number(word: str, what: str) -> float:
    if (number := labels.number_of(word)) is None:
        raise ValueError(f"{what} is no finite number, and a regression needs one")
    if number.copy_abs() > labels.LARGEST:
        raise ValueError(f"{what} is larger than what float32, in which a model computes, can hold: scale the labels")
    return float(number)


def _place(table: Table, row: int) -> str:
    return table.where(row).removeprefix(f"{table.path}, ")
