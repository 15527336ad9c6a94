"""What a chunk is told, and what it gives."""

from typing import Any, NamedTuple


class Told(NamedTuple):
    """What the command line says: tiny sizes that only show that it works, and counted rounds of what takes turns."""

    quick: bool
    steps: int


class Table(NamedTuple):
    """A table as text, with a sentence above it."""

    title: str
    header: tuple[str, ...]
    lines: list[tuple[str, ...]]


class Part(NamedTuple):
    """What a chunk found.

    Attributes:
        tables: for the page.
        facts: numbers behind them, for JSON.
        wrong: a sentence about what is not as it must be; empty where all is right.
        missing: a sentence about what is not here, so that nothing was done; else empty.
    """

    tables: list[Table]
    facts: dict[str, Any]
    wrong: str = ""
    missing: str = ""
