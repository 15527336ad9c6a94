"""Published numbers as data, one YAML per source."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from glue_sparse.records.scales import Scale, scale_of


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


@lru_cache
def read(name: str) -> Published:
    """The source in `published/NAME.yaml`.

    Raises:
        ValueError: there is none.
    """
    path = Path(__file__).parent / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise ValueError(f"no published numbers are called {name!r}; there are {known}")
    data = yaml.safe_load(path.read_text())
    values = {
        (row, column): number
        for row, numbers in data["rows"].items()
        for column, number in zip(data["columns"], numbers, strict=True)
        if number is not None
    }
    notes, settings, metric = tuple(data.get("notes", ())), data.get("settings", {}), data.get("metric", "")
    printed, tables = data.get("tables", {}), {}
    for number, table in printed.items():
        records = tuple(dict(zip(table["columns"], row, strict=True)) for row in table["rows"])
        tables[number] = Table(table["caption"], tuple(table.get("notes", ())), records)
        values |= _values(tables[number], table.get("places", ()), metric)
    return Published(data["name"], data["source"], notes, settings, values, metric, tables)


def _values(table: Table, places: Iterable[dict[str, Any]], metric: str) -> dict[tuple[str, str], float]:
    """(row, column) of our grids -> mean of the lines of a table that belong there.

    Args:
        places: `row` and `column`, names with a line's cells in braces, and `where`, cells that the lines must have.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for place in places:
        where = place.get("where", {}).items()
        for record in (record for record in table.records if where <= record.items()):
            key = place["row"].format(**record), place["column"].format(**record)
            found.setdefault(key, []).append(record[metric])
    return {key: mean(numbers) for key, numbers in found.items()}
