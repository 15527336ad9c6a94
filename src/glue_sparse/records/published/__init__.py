"""Published numbers as data, one YAML per source."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import mean
from typing import Any

from glue_sparse.arguments.yaml_file import yaml_object
from glue_sparse.records.scales import Scale, scale_of
from glue_sparse.writing.fields import typed


@dataclass(frozen=True)
class Table:
    """A table of a source as it was printed.

    Attributes:
        caption: what it is of, and the settings of its runs.
        notes: what a reader must know about its numbers.
        records: column -> cell for each line; an empty cell is None.
    """

    caption: str
    notes: tuple[str, ...]
    records: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Published:
    """Numbers of one source.

    Attributes:
        name: short, for the line in a table.
        source: where exactly they are from.
        notes: what a reader must know about them.
        settings: what a run of ours must share with theirs to be compared; the rest is in the notes.
        values: (row, column) -> number, under the names that our grids use.
        metric: what the values are of: percent, or a loss.
        tables: number of a table -> all that it holds.
    """

    name: str
    source: str
    notes: tuple[str, ...]
    settings: dict[str, Any]
    values: dict[tuple[str, str], float]
    metric: str = ""
    tables: dict[str, Table] = field(default_factory=dict)

    @property
    def scale(self) -> Scale:
        """How the values are told."""
        return scale_of(self.metric)

    def value(self, row: str, column: str) -> float | None:
        """The number for a place of a grid, if there is one."""
        return self.values.get((row, column))

    def has(self, row: str, columns: Iterable[str]) -> bool:
        """Whether there is any number in a row."""
        return any(self.value(row, column) is not None for column in columns)


@dataclass(frozen=True)
class _Place:
    """A place of our grids: names with a line's cells in braces, and the cells that the lines must have."""

    row: str
    column: str
    where: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Printed:
    """A table in the YAML of a source."""

    caption: str
    columns: list[str]
    rows: list[list[Any]]
    notes: tuple[str, ...] = ()
    places: tuple[_Place, ...] = ()


@dataclass(frozen=True)
class _Source:
    """The YAML of a source."""

    name: str
    source: str
    columns: list[str]
    rows: dict[str, list[float | None]]
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    metric: str = ""
    tables: dict[str, _Printed] = field(default_factory=dict)


@lru_cache
def read(name: str) -> Published:
    """The source in `published/NAME.yaml`.

    Raises:
        ValueError: there is none, or it is not as it must be.
    """
    paths = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}
    if name not in paths:
        raise ValueError(f"no published numbers are called {name!r}; there are {', '.join(paths)}")
    data = typed(_Source, yaml_object(paths[name]), paths[name])
    values = {
        (row, column): number
        for row, numbers in data.rows.items()
        for column, number in zip(data.columns, numbers, strict=True)
        if number is not None
    }
    tables = {}
    for number, table in data.tables.items():
        records = tuple(dict(zip(table.columns, row, strict=True)) for row in table.rows)
        tables[number] = Table(table.caption, table.notes, records)
        values |= _values(tables[number], table.places, data.metric)
    return Published(data.name, data.source, data.notes, data.settings, values, data.metric, tables)


def _values(table: Table, places: Iterable[_Place], metric: str) -> dict[tuple[str, str], float]:
    """(row, column) of our grids -> mean of the lines of a table that belong there."""
    found: dict[tuple[str, str], list[float]] = {}
    for place in places:
        where = place.where.items()
        for record in (record for record in table.records if where <= record.items()):
            key = place.row.format(**record), place.column.format(**record)
            found.setdefault(key, []).append(record[metric])
    return {key: mean(numbers) for key, numbers in found.items()}
