"""A place of a grid's table, a row and a column, and the results that are there; loads no model."""

from dataclasses import dataclass
from statistics import mean, stdev

from glue_sparse.records.results import Result
from glue_sparse.records.scales import Scale, scales_of
from glue_sparse.reports.statistics import half_width


@dataclass(frozen=True)
class Place:
    """One place of a table: the runs of a row and a column that are there, out of those that should be."""

    found: tuple[Result, ...]
    wanted: int

    @property
    def is_complete(self) -> bool:
        return len(self.found) == self.wanted

    @property
    def scale(self) -> Scale:
        """Of the runs' main metric, in which mean and spread are."""
        return scales_of(self.found)[0]

    @property
    def mean(self) -> float:
        """Percent, or the loss itself."""
        return self.scale.shown(mean(result.score for result in self.found))

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds, in the units of the mean; none for a single seed."""
        one = len(self.found) < 2
        return None if one else self.scale.shown(stdev(result.score for result in self.found))

    def half_width(self, percent: float) -> float | None:
        """Half of the t interval of the mean over seeds, in its units; none for a single seed."""
        return half_width([self.scale.shown(result.score) for result in self.found], percent)

    def text(self, plus_minus: str = "±", interval: float | None = None) -> str:
        """`mean ± std (seeds)`; says so when seeds are missing, and `-` when there is nothing.

        Args:
            interval: percent of the interval of the mean to show in the place of the standard deviation.
        """
        if not self.found:
            return "-"
        width = self.std if interval is None else self.half_width(interval)
        spread = "" if width is None else f" {plus_minus} {self.scale.text(width)}"
        count = str(self.wanted) if self.is_complete else f"{len(self.found)} of {self.wanted}"
        return f"{self.scale.text(self.mean)}{spread} ({count})"
