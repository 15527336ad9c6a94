"""What the report tells of runs: sections, one for a grid and a model, and in them a line for a row and a column."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import isclose
from statistics import mean

from glue_sparse.experiments.sweeps import is_number
from glue_sparse.records.archive import Entry
from glue_sparse.records.results import Result
from glue_sparse.records.scales import Scale
from glue_sparse.reports.places import Place

PERCENT = 95.0
"""Of the intervals of means."""

_OF_SWEEP = re.compile(r"(.+?)-(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
"""The name of a row of a sweep, as `sweeps.row_name` makes it."""


@dataclass(frozen=True)
class Line:
    """The runs of a row and a column, one for each seed, in the order of seeds.

    Attributes:
        row, column: as the grid calls them; `row` may be shortened to that of a family, see `swept`.
    """

    row: str
    column: str
    found: tuple[Result, ...]

    @property
    def first(self) -> Result:
        return self.found[0]

    @property
    def scale(self) -> Scale:
        return Place(self.found, len(self.found)).scale

    @cached_property
    def scores(self) -> list[float]:
        """As tables show them."""
        return [self.scale.shown(result.score) for result in self.found]

    @cached_property
    def half_width(self) -> float | None:
        """Half of the interval of the mean score; none for a single seed."""
        return Place(self.found, len(self.found)).half_width(PERCENT)

    @property
    def worth(self) -> float:
        """Larger is better."""
        return self.scale.worth(mean(self.scores))

    def number(self, of: Callable[[Result], float | None]) -> float | None:
        """Mean over the runs; none where a run does not tell it."""
        values = [of(result) for result in self.found]
        known = [value for value in values if value is not None]
        return mean(known) if len(known) == len(values) else None


@dataclass(frozen=True)
class Section:
    """The runs of one model in one grid."""

    grid: str
    model: str
    lines: tuple[Line, ...]

    @property
    def columns(self) -> dict[str, list[Line]]:
        """Column -> its lines."""
        return {name: [line for line in self.lines if line.column == name] for name in self.titles}

    @cached_property
    def titles(self) -> dict[str, str]:
        """Column -> what its data and its metric are called."""
        firsts = {line.column: line.first for line in reversed(self.lines)}
        titles = {column: f"{run.title}, {run.main_metric}" for column, run in sorted(firsts.items())}
        shared = {column for column, title in titles.items() if [*titles.values()].count(title) > 1}
        return {column: f"{column}: {title}" if column in shared else title for column, title in titles.items()}


def sections(entries: Iterable[Entry]) -> list[Section]:
    """Runs by grid and model, in the order of their first; lines of one column stand together."""
    found: dict[tuple[str, str], dict[tuple[str, str], dict[int, Result]]] = {}
    for entry in entries:
        lines = found.setdefault((entry.grid, entry.model), {})
        lines.setdefault((entry.column, entry.row), {})[entry.seed] = entry.result
    return [
        Section(grid, model, tuple(Line(row, column, tuple(runs[seed] for seed in sorted(runs)))
                                   for (column, row), runs in sorted(lines.items(), key=lambda one: one[0][0])))
        for (grid, model), lines in found.items()
    ]  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """Rows of a column that differ in one setting.

    Attributes:
        families: name -> value of the setting -> its line; each has two values or more.
    """

    setting: str
    families: dict[str, dict[float, Line]]


def swept(lines: Iterable[Line]) -> tuple[list[Sweep], list[Line]]:
    """The sweeps among the lines of a column, and those lines with each family as its best, under the family's name."""
    families: dict[str, dict[float, Line]] = {}
    for line in lines:
        if name := _OF_SWEEP.fullmatch(line.row):
            families.setdefault(name[1], {})[float(name[2])] = line
    settings = {name: _setting(family) for name, family in families.items() if len(family) > 1}
    families = {name: families[name] for name, setting in settings.items() if setting}
    inside = {line.row: name for name, family in families.items() for line in family.values()}
    best: dict[str, Line] = {}
    for line in lines:
        name = inside.get(line.row, line.row)
        if name not in best or line.worth > best[name].worth:
            best[name] = Line(name, line.column, line.found)
    found = {setting: {name: dict(sorted(families[name].items())) for name in families if settings[name] == setting}
             for setting in dict.fromkeys(filter(None, settings.values()))}  # fmt: skip
    return [Sweep(setting, some) for setting, some in found.items()], [*best.values()]


def _setting(family: dict[float, Line]) -> str | None:
    """The setting that is, in each run, the number in the name of its row; none where there is no such setting."""

    def told(result: Result) -> dict[str, float]:
        known = {"density": result.density, "learning_rate": result.learning_rate, **result.arguments}
        return {name: float(value) for name, value in known.items() if is_number(value)}

    runs = [(value, told(result)) for value, line in family.items() for result in line.found]
    names = [name for name in runs[0][1] if all(isclose(run.get(name, -1.0), value, rel_tol=1e-4)
                                                for value, run in runs)]  # fmt: skip
    return names[0] if names else None
