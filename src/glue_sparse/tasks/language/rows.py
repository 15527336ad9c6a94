"""Rows to fine-tune a decoder on, in the formats of trl: `messages`, `prompt` with `completion`, or a text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glue_sparse.tasks.tables import READERS, Number, collect
from glue_sparse.writing.characters import check_file, fault_of
from glue_sparse.writing.fields import json_value
from glue_sparse.writing.words import listed, shown

Row = dict[str, Any]
"""What a row says under the columns of its format, and `tools` and `chat_template_kwargs` where it has them."""

OPTIONAL = ("tools", "chat_template_kwargs")
"""What a row of messages may say beside them: JSON schemas of functions, and values for the template."""


@dataclass(frozen=True)
class Rows:
    """Rows of one format, and where they are from."""

    name: str
    columns: tuple[str, ...]
    """Of the format: (`messages`,), (`prompt`, `completion`) or (`text`,)."""
    rows: Sequence[Row]
    places: Sequence[str] = ()
    """Of each row, in words, for error messages; none where rows have a number alone."""

    def place(self, number: int) -> str:
        """Where a row is."""
        return self.places[number] if self.places else f"{self.name}, row {number + 1}"

    def only(self, numbers: Iterable[int]) -> "Rows":
        """The rows of these numbers alone."""
        kept = [*numbers]
        places = [self.place(number) for number in kept]
        return Rows(self.name, self.columns, [self.rows[number] for number in kept], places)


def read(path: Path, text: str) -> Rows:
    """The rows of a file of JSON lines, parquet, csv or tsv.

    Args:
        text: the column of plain texts.
    Raises:
        ValueError: no such file or format, no rows, or one that is not of the first's format; with its line.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} has an unknown ending; {', '.join(READERS)} can be read")
    check_file(path)
    first = next(reader(path), (0, None))[1]
    if first is None:
        raise ValueError(f"{path} has no rows")
    columns = format_of(first, text, str(path))
    table = collect(path, reader, columns, OPTIONAL)
    cells = [{name: cells[row] for name, cells in table.columns.items()} for row in range(len(table.lines))]
    return checked(Rows(path.name, columns, cells, [table.where(row) for row in range(len(cells))]))


def format_of(row: Mapping[str, Any], text: str, where: str) -> tuple[str, ...]:
    """The columns of the format that a row is in, of several the one that trl takes; ValueError where there is none."""
    for columns in (("prompt", "completion"), ("messages",), (text,)):
        if all(row.get(name) is not None for name in columns):
            return columns
    raise ValueError(f"{where} has none of the columns that are read, `prompt` and `completion`, `messages`, or "
                     f"{shown(text)}; found: {listed(row)}")  # fmt: skip


def checked(rows: Rows) -> Rows:
    """The rows with plain numbers and without empty cells; ValueError for one that cannot be read, with its place."""
    kept = []
    for number, row in enumerate(rows.rows):
        row = {name: _plain(value) for name, value in row.items() if value is not None or name not in OPTIONAL}
        if fault := _fault(row, rows.columns):
            raise ValueError(f"{rows.place(number)}: {fault}")
        kept.append(row)
    return Rows(rows.name, rows.columns, kept, rows.places)


def is_conversation(row: Row) -> bool:
    """Whether a row is told as messages, each of a role."""
    return isinstance(row.get("messages", row.get("prompt")), list)


def key(row: Row) -> str:
    """What makes a row another than the others."""
    return repr(sorted(row.items()))


def _fault(row: Row, columns: Sequence[str]) -> str | None:
    """What is wrong with a row, as the end of a sentence; None when all is well."""
    for name in columns:
        cell = row.get(name)
        if isinstance(cell, list) and name in ("messages", "prompt", "completion"):
            fault = _fault_of_messages(cell)
        elif not isinstance(cell, str):
            fault = f"holds {shown(cell)}" + (", not messages" if name == "messages" else ", which is no text")
        elif name == "messages":
            fault = "is a text, not a list of messages"
        else:
            fault = fault_of(cell) or ("is empty" if not cell.strip() and name != "prompt" else None)
        if fault:
            return f"column {shown(name)} {fault}"
    if len(columns) == 2 and len({type(row[name]) for name in columns}) == 2:
        return "of prompt and completion one is a text and the other a list of messages"
    return None


def _fault_of_messages(messages: list[Any]) -> str | None:
    if not messages:
        return "has no messages"
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return f"has a message, number {number}, without a role"
        content = message.get("content")
        if content is None and not message.get("tool_calls"):
            return f"has a message, number {number}, without content"
        if isinstance(content, str) and (fault := fault_of(content)):
            return f"has a message, number {number}, that {fault}"
        if content is not None and not isinstance(content, str | list):
            return f"has a message, number {number}, whose content is {shown(content)}, not a text"
    return None


def _plain(value: Any) -> Any:
    """A value of JSON with its numbers, which the reader leaves as they are written; empty cells of objects go."""
    if isinstance(value, Number):
        return json_value(value, "a number")
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):  # parquet gives each message the fields of all
        return {name: _plain(one) for name, one in value.items() if one is not None or name == "content"}
    return value
