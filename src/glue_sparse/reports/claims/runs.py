"""The runs behind a claim, side by side: one model for each column, and sweeps at equal or best values."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
        name: of the column, and of what stood for `{}`.
        sides: the runs of each side.
    """

    name: str
    sides: tuple[Sweep, ...]
    at: str | None = None

    @property
    def seeds(self) -> frozenset[int]:
        """At which every side has a run that another can be compared with."""
        if self.at == "equal":
            common = self._common
            return frozenset().union(*(_shared(side[key] for side in self.sides) for key in common))
        return _shared({s: 0 for seeds in side.values() for s in seeds} for side in self.sides)

    @property
    def _common(self) -> list[str]:
        return [key for key in self.sides[0] if all(key in side for side in self.sides)]

    def lines(self, seeds: Sequence[int]) -> dict[int, list[tuple[Result, ...]]]:
        """Seed -> runs to compare, one of each side; several where the sides are compared at equal values.

        Only values of sweeps that have all of these seeds take part.
        """
        kept = [{key: runs for key, runs in side.items() if {*seeds} <= runs.keys()} for side in self.sides]
        if self.at == "equal":
            keys = [key for key in self._common if all(key in side for side in kept)]
            return {seed: [tuple(side[key][seed] for side in kept) for key in keys] for seed in seeds}
        if not all(kept) or (self.at == "best" and len(seeds) < 2):
            return {seed: [] for seed in seeds}
        pick = _CHOICES[self.at]
        return {seed: [tuple(side[pick(side, seed, seeds)][seed] for side in kept)] for seed in seeds}


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
        text = one if isinstance(one, str) else row_name("", one)[1:]
        yield text, tuple(side.replace("{}", text) for side in place.sides)


def _of_columns(place: Place, filled: tuple[str, tuple[str, ...]], runs: Runs) -> Iterator[Stratum]:
    text, sides = filled
    own = [side.partition("@") for side in sides]
    columns = [""] if all(at for _, at, _ in own) else place.columns or runs.columns(place.grid)
    for column in columns:
        name = " ".join(part for part in (column or " and ".join(sides), text) if part)
        if stratum := _with_most_seeds(place, name, [(row, at or column) for row, _, at in own], runs):
            yield stratum


def _with_most_seeds(place: Place, name: str, cells: Sequence[tuple[str, str]], runs: Runs) -> Stratum | None:
    """Of the models that a column was run with, the one with most seeds in common; then the one with most weights.

    Sides of different columns may be of different models.
    """

    def stratum(models: Sequence[str]) -> Stratum:
        sides = zip(cells, models, strict=True)
        swept = (runs.sweep(place.grid, row, column, model) for (row, column), model in sides)
        return Stratum(name, tuple(_single(side, place.at) for side in swept), place.at)

    if len({column for _, column in cells}) == 1:
        choices = [[model] * len(cells) for model in runs.models(place.grid, cells[0][1])]
    else:
        choices = [[next(iter(runs.models(place.grid, column)), "") for _, column in cells]]
    found = [one for one in map(stratum, choices) if all(one.sides)]
    return max(found, key=lambda one: (len(one.seeds), _weights(one)), default=None)


def _single(side: Sweep, at: str | None) -> Sweep:
    """A sweep can stand on a side only where it is said at which of its values."""
    return side if at or "" in side else {}


def _weights(stratum: Stratum) -> float:
    return max(run.cost["num_entries"] for side in stratum.sides for seeds in side.values() for run in seeds.values())
