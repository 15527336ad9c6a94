"""A grid with the results of its runs, each read once and handed on; loads no model."""

from dataclasses import dataclass, replace
from functools import cached_property

from glue_sparse.experiments.cells import Cell, Grid
from glue_sparse.records.results import Result
from glue_sparse.records.scales import Scale, scales_of
from glue_sparse.reports.places import Place
from glue_sparse.reports.statistics import SPREAD, Comparison, Statistics, compared, corrected


@dataclass(frozen=True)
class Sheet:
    """What was found for a grid, at one moment.

    Attributes:
        results: (row, column, seed) -> the finished run.
        statistics: what its table says of chance.
    """

    grid: Grid
    results: dict[tuple[str, str, int], Result]
    statistics: Statistics = SPREAD

    @classmethod
    def of(cls, grid: Grid, statistics: Statistics = SPREAD) -> "Sheet":
        """Read the result of every cell that a table shows, where there is one; raises as `Cell.result`."""
        shown = [cell for cell in grid.cells if cell.row in grid.rows]
        found = {(cell.row, cell.column, cell.seed): cell.result() for cell in shown}
        return cls(grid, {key: result for key, result in found.items() if result is not None}, statistics)

    def begun(self) -> "Sheet":
        """Without the rows and columns that have no finished run; the title says how many rows there are."""
        if not self.results:
            return self
        rows, columns = ({key[part] for key in self.results} for part in (0, 1))
        kept = {row: settings for row, settings in self.grid.rows.items() if row in rows}
        told = {column: settings for column, settings in self.grid.columns.items() if column in columns}
        title = self.grid.title
        if len(kept) < len(self.grid.rows):
            title += f" ({len(kept)} of {len(self.grid.rows)} rows have runs)"
        return replace(self, grid=replace(self.grid, rows=kept, columns=told, title=title))

    def result(self, cell: Cell) -> Result | None:
        """The finished run of a cell."""
        return self.results.get((cell.row, cell.column, cell.seed))

    def by_seed(self, row: str, column: str) -> dict[int, Result]:
        """Seed -> the finished run of a place."""
        cells = {cell.seed: self.result(cell) for cell in self.grid.at(row, column)}
        return {seed: result for seed, result in cells.items() if result is not None}

    @cached_property
    def places(self) -> dict[tuple[str, str], Place]:
        """(row, column) -> what was found there."""
        return {
            (row, column): Place(tuple(self.by_seed(row, column).values()), len(self.grid.at(row, column)))
            for row, column in self.grid.places
        }

    @cached_property
    def comparisons(self) -> dict[tuple[str, str], Comparison]:
        """(row, column) -> the row minus the one to compare with, where both have a seed in common; none unless asked.

        Runs of different metrics are never compared.
        """
        against, percent, found = self.statistics.against, self.statistics.percent, {}
        for row, column in self.grid.places if against is not None else ():
            runs, others = self.by_seed(row, column), self.by_seed(str(against), column)
            seeds = [seed for seed, run in runs.items()
                     if seed in others and others[seed].main_metric == run.main_metric]  # fmt: skip
            if row != against and seeds:
                shown = self.places[row, column].scale.shown
                scores, theirs = ([shown(some[seed].score) for seed in seeds] for some in (runs, others))
                found[row, column] = compared(scores, theirs, percent)
        return corrected(found)

    @property
    def found(self) -> list[Result]:
        """All that the table shows, place by place."""
        return [result for place in self.places.values() for result in place.found]

    @property
    def scales(self) -> list[Scale]:
        """Of all that the table shows, each once."""
        return scales_of(self.found)

    @cached_property
    def titles(self) -> dict[str, str]:
        """Column -> what its results call the data."""
        return self._titles(with_metric=False)

    @cached_property
    def titles_with_metric(self) -> dict[str, str]:
        """The same, with the metric."""
        return self._titles(with_metric=True)

    def _titles(self, with_metric: bool) -> dict[str, str]:
        """Behind the column's own name where several columns share their data."""
        titles = {}
        for column in self.grid.columns:
            found = [result for row in self.grid.rows for result in self.places[row, column].found]
            named = dict.fromkeys(f"{r.title} {r.main_metric}" if with_metric else r.title for r in found)
            titles[column] = " / ".join(named) or column
        shared = {column for column, title in titles.items() if [*titles.values()].count(title) > 1}
        return {column: f"{column}: {title}" if column in shared else title for column, title in titles.items()}
