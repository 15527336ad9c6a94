"""The runs behind a claim, side by side: one model for each column, and sweeps at equal or best values."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import mean

from glue_sparse.experiments.sweeps import row_name
from glue_sparse.records.archive import Entry
from glue_sparse.records.claims import Place
from glue_sparse.records.results import Result
from glue_sparse.reports.claims.measures import worth

Seeds = Mapping[int, Result]
"""Seed -> run."""
Sweep = Mapping[str, Seeds]
"""Value of a sweep -> its runs; of a single row, under an empty text."""


class Runs:
    """Finished runs by grid, row, column and model."""

    def __init__(self, entries: Iterable[Entry]):
        self._found: dict[str, dict[str, dict[str, dict[str, dict[int, Result]]]]] = {}
        for one in entries:
            rows = self._found.setdefault(one.grid, {})
            rows.setdefault(one.row, {}).setdefault(one.column, {}).setdefault(one.model, {})[one.seed] = one.result

    def columns(self, grid: str) -> list[str]:
        """Of a grid, in the order of its runs."""
        return list(dict.fromkeys(column for columns in self._found.get(grid, {}).values() for column in columns))

    def models(self, grid: str, column: str) -> list[str]:
        """That have runs in a column."""
        rows = self._found.get(grid, {}).values()
        return list(dict.fromkeys(model for columns in rows for model in columns.get(column, {})))

    def sweep(self, grid: str, side: str, column: str, model: str) -> Sweep:
        """The runs of a row, or those of a family by the value that their names end with."""
        rows = self._found.get(grid, {})
        names = {"": side} if side in rows else _family(side, rows)
        found = {key: rows[row].get(column, {}).get(model, {}) for key, row in names.items()}
        return {key: seeds for key, seeds in found.items() if seeds}


def _family(name: str, rows: Iterable[str]) -> dict[str, str]:
    """Value -> row, of the rows that a sweep named NAME-VALUE."""
    ends = {row.removeprefix(f"{name}-"): row for row in rows if row.startswith(f"{name}-")}
    return {end: row for end, row in ends.items() if _is_value(end)}


def _is_value(text: str) -> bool:
    try:
        return row_name("", float(text)) == f"-{text}"
    except ValueError:
        return False


@dataclass(frozen=True)
class Stratum:
    """What is compared within: the sides of a place in one column.

    Attributes:
        key: column, what stood for `{}`, and the value of the sweeps at which sides are compared; empty texts where
            there is no such thing.
        sides: the runs of each side.
    """

    key: tuple[str, str, str]
    sides: tuple[Sweep, ...]
    at: str | None = None

    @property
    def name(self) -> str:
        """For a sentence."""
        return " ".join(part for part in self.key if part)

    @property
    def seeds(self) -> frozenset[int]:
        """At which every side has a run."""
        return _shared({seed: 0 for seeds in side.values() for seed in seeds} for side in self.sides)

    def lines(self, seeds: Sequence[int]) -> dict[int, tuple[Result, ...]]:
        """Seed -> runs to compare, one of each side; none where a side has no value of its sweep with all seeds."""
        kept = [{key: runs for key, runs in side.items() if {*seeds} <= runs.keys()} for side in self.sides]
        if not all(kept) or (self.at == "best" and len(seeds) < 2):
            return dict.fromkeys(seeds, ())
        pick = _CHOICES[self.at]
        return {seed: tuple(side[pick(side, seed, seeds)][seed] for side in kept) for seed in seeds}

    def coarseness(self, line: Sequence[Result], number: Callable[[Result], float | None]) -> float:
        """How far the best values may be from those of a line, all sides together: half of the way to the next ones.

        Args:
            number: what was tried, of a run.
        Returns:
            Infinity where a side did best at an end of what was tried, 0 where it tried one value.
        """
        found = 0.0
        for side, best in zip(self.sides, line, strict=True):
            told = (number(run) for seeds in side.values() for run in seeds.values())
            tried = sorted({one for one in told if one is not None})
            place = tried.index(number(best))  # pyright: ignore[reportArgumentType]
            if len(tried) == 1:
                continue
            if place in (0, len(tried) - 1):
                return inf
            found += max(tried[place] - tried[place - 1], tried[place + 1] - tried[place]) / 2
        return found

    def at_each_value(self) -> list["Stratum"]:
        """One for each value of the sweeps that all sides have."""
        first, *others = self.sides
        values = [value for value in first if all(value in side for side in others)]
        return [Stratum((*self.key[:2], value), tuple({"": side[value]} for side in self.sides)) for value in values]


def _shared(groups: Iterable[Iterable[int]]) -> frozenset[int]:
    sets = [frozenset(group) for group in groups]
    return frozenset.intersection(*sets) if sets else frozenset()


def _only(side: Sweep, seed: int, seeds: Sequence[int]) -> str:
    return next(iter(side))


def _best_on_others(side: Sweep, seed: int, seeds: Sequence[int]) -> str:
    """So that the choice is not made on the number that is reported; there must be another seed."""
    others = [other for other in seeds if other != seed]
    return max(side, key=lambda key: mean(worth(side[key][other]) for other in others))


def _best_on_own(side: Sweep, seed: int, seeds: Sequence[int]) -> str:
    return max(side, key=lambda key: worth(side[key][seed]))


_CHOICES: dict[str | None, Callable[[Sweep, int, Sequence[int]], str]] = {
    None: _only, "best": _best_on_others, "own best": _best_on_own,
}  # fmt: skip


def strata(place: Place, runs: Runs) -> list[Stratum]:
    """What a place compares within, of those parts of it that have runs of every side."""
    found = [stratum for texts in _filled(place) for stratum in _of_columns(place, texts, runs)]
    return [stratum for stratum in found if stratum.seeds]


def _filled(place: Place) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What stands for `{}`, and the sides with it."""
    for one in place.each or ("",):
        text = _text(one)
        yield text, tuple(side.replace("{}", text) for side in place.sides)


def _text(value: str | float) -> str:
    """As the name of a row has it."""
    return value if isinstance(value, str) else row_name("", value)[1:]


def _of_columns(place: Place, filled: tuple[str, tuple[str, ...]], runs: Runs) -> Iterator[Stratum]:
    text, sides = filled
    own = [side.partition("@") for side in sides]
    columns = [""] if all(at for _, at, _ in own) else place.columns or runs.columns(place.grid)
    for column in columns:
        key = column or " and ".join(sides), text, ""
        if stratum := _with_most_seeds(place, key, [(row, at or column) for row, _, at in own], runs):
            yield from stratum.at_each_value() if place.at == "equal" else [stratum]


def _with_most_seeds(
    place: Place, key: tuple[str, str, str], cells: Sequence[tuple[str, str]], runs: Runs
) -> Stratum | None:
    """Of the models that a column was run with, the one with most seeds in common; then the one with most weights.

    Sides of different columns may be of different models.
    """

    def stratum(models: Sequence[str]) -> Stratum:
        sides = zip(cells, models, strict=True)
        swept = (runs.sweep(place.grid, row, column, model) for (row, column), model in sides)
        return Stratum(key, tuple(_allowed(side, place) for side in swept), place.at)

    if len({column for _, column in cells}) == 1:
        choices = [[model] * len(cells) for model in runs.models(place.grid, cells[0][1])]
    else:
        choices = [[next(iter(runs.models(place.grid, column)), "") for _, column in cells]]
    found = [one for one in map(stratum, choices) if all(one.sides)]
    return max(found, key=lambda one: (len(one.seeds), _weights(one)), default=None)


def _allowed(side: Sweep, place: Place) -> Sweep:
    """The values that a place asks for; of a sweep, none where it is not said how they are compared."""
    values = [_text(value) for value in place.values]
    return {key: seeds for key, seeds in side.items() if not key or (place.at and (not values or key in values))}


def _weights(stratum: Stratum) -> float:
    return max(run.cost["num_entries"] for side in stratum.sides for seeds in side.values() for run in seeds.values())
