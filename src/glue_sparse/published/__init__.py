"""Published numbers as data, one YAML per source."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Published:
    """Numbers of one source, in percent.

    Attributes:
        name: short, for the line in a table.
        source: where exactly they are from.
        notes: what a reader must know about them.
        settings: what a run of ours must share with theirs to be compared; the rest is in the notes.
        values: (row, column) -> number, under the names that our grids use.
    """

    name: str
    source: str
    notes: tuple[str, ...]
    settings: dict[str, Any]
    values: dict[tuple[str, str], float]

    def value(self, row: str, column: str) -> float | None:
        """The number for a place of a grid, if there is one."""
        return self.values.get((row, column))

    def has(self, row: str, columns: Iterable[str]) -> bool:
        """Whether there is any number in a row."""
        return any(self.value(row, column) is not None for column in columns)


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
    return Published(data["name"], data["source"], tuple(data.get("notes", ())), data.get("settings", {}), values)
