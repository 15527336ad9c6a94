"""What a bank takes in memory, by task."""

from collections.abc import Mapping
from dataclasses import dataclass

from glue_sparse.banks.loaded import Bits, Loaded
from glue_sparse.writing.tables import markdown


@dataclass(frozen=True)
class TaskMemory:
    """Bytes of one task, or of tasks that are used together."""

    positions: int = 0
    """8 each, as they are written with."""
    values: int = 0
    """In the base's type."""
    kept: int = 0
    """What the base has there; none before the first use."""
    whole: int = 0
    """Heads and other tensors that are stored whole."""
    given: int = 0
    """The diff itself, where it was given and not a path."""
    mixed: int = 0
    """What batches of several tasks need of it."""

    @classmethod
    def of(cls, loaded: Loaded | None, given: int, mixed: int) -> "TaskMemory":
        """Of a task that is ready, or of one that is not."""
        if loaded is None:
            return cls(given=given, mixed=mixed)
        entries = loaded.entries.values()
        return cls(
            sum(one.places.nbytes for one in entries), sum(one.values.nbytes for one in entries),
            sum(_size(one.kept) for one in entries), sum(tensor.nbytes for tensor in loaded.whole.values()),
            given, mixed,
        )  # fmt: skip

    @property
    def total(self) -> int:
        """All of it."""
        return self.positions + self.values + self.kept + self.whole + self.given + self.mixed


def _size(found: Bits | None) -> int:
    return 0 if found is None else found.nbytes


@dataclass(frozen=True)
class BankMemory:
    """Bytes of a base and the tasks beside it; as text, a table of those that take any.

    Attributes:
        base: of all parameters and saved buffers.
        tasks: name, or names joined by ` + `, -> its bytes; 0 where only its place is known.
    """

    base: int
    tasks: Mapping[str, TaskMemory]

    @property
    def total(self) -> int:
        """The base and all tasks."""
        return self.base + sum(one.total for one in self.tasks.values())

    def __str__(self) -> str:
        held = {name: one for name, one in self.tasks.items() if one.total}
        lines = [_line(name, one) for name, one in held.items()]
        others = len(self.tasks) - len(held)
        lines += [(f"{others} more, on disk", *["0"] * 7)] if others else []
        lines += [("base", *["-"] * 6, f"{self.base:,}"), ("all", *["-"] * 6, f"{self.total:,}")]
        return markdown(("bytes of", "positions", "values", "kept", "whole", "given", "mixed", "total"), lines)


def _line(name: str, one: TaskMemory) -> tuple[str, ...]:
    found = (one.positions, one.values, one.kept, one.whole, one.given, one.mixed, one.total)
    return (name, *(f"{number:,}" for number in found))
