"""Records by name: this package's own, those of other packages, and what a program registers. Loads no torch."""

import logging
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar

from glue_sparse.writing.words import check_one_of

logger = logging.getLogger(__name__)


class Named(Protocol):
    """Whatever has a name."""

    @property
    def name(self) -> str: ...


Record = TypeVar("Record", bound=Named)


class Registry(dict[str, Record]):
    """Name -> record. As a mapping it holds what is registered so far; `known` adds what other packages have.

    Attributes:
        kind: what its records are, in one word.
        group: the entry points under which other packages name records of theirs.
    """

    def __init__(self, kind: str, group: str) -> None:
        super().__init__()
        self.kind, self.group, self._is_complete = kind, group, False

    def register(self, record: Record) -> None:
        """Add a record; the same again is no mistake.

        Raises:
            ValueError: there is another of this name.
        """
        if self.get(record.name, record) != record:
            raise ValueError(f"there is a {self.kind} {record.name} already")
        self[record.name] = record

    def known(self) -> Mapping[str, Record]:
        """All records by name, those of installed packages too."""
        if not self._is_complete:
            self._is_complete = True
            for point in entry_points(group=self.group):
                try:
                    self.register(point.load())
                except Exception as error:  # of a package that is not ours; without it everything else still works
                    logger.warning("the %s %s of %s is not to be had: %s", self.kind, point.name, point.value, error)
        return self

    def find(self, name: str) -> Record:
        """A record by its name; ValueError where there is none."""
        check_one_of(self.kind, name, self.known())
        return self[name]


def imported(place: Any) -> Any:
    """A function, or the one that the text `module:function` names, which is imported now."""
    if not isinstance(place, str):
        return place
    module, _, function = place.partition(":")
    return getattr(import_module(module), function)
