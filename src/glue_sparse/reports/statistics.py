"""What chance does to the scores of a table: intervals of means, and tests of rows against one of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import mean, stdev

from glue_sparse.records.scales import Scale
from glue_sparse.writing.words import check_one_of, prefixed

_SAME = 1e-9
"""Differences that vary by less than this share of the scores are equal, but for rounding."""


@dataclass(frozen=True)
class Statistics:
    """What a table is to say of chance, beside means.

    Attributes:
        interval: percent of the interval of a mean that stands in the place of a standard deviation.
        against: the row that all others are compared with.
    """

    interval: float | None = None
    against: str | None = None

    @property
    def percent(self) -> float:
        """Of all intervals: 95 where only `against` is given."""
        return 95.0 if self.interval is None else self.interval

    def check(self, rows: Sequence[str]) -> None:
        """Raise a ValueError for a row to compare with that a table does not have, or that stands alone there."""
        if self.against is None:
            return
        with prefixed("`against`"):
            check_one_of("row", self.against, rows)
        if len(rows) == 1:
            raise ValueError(f"`against` {self.against} is the only row: choose others beside it by `rows`")


SPREAD = Statistics()
"""Standard deviations alone."""


def half_width(values: Sequence[float], percent: float) -> float | None:
    """Half the width of Student's t interval of the mean; none for a single value.

    Args:
        percent: how often such an interval holds the mean of all that could have been drawn, where it is normal.
    """
    if len(values) < 2:
        return None
    from scipy.stats import t  # half a second, for those who ask

    quantile = float(t.ppf((1 + percent / 100) / 2, len(values) - 1))
    return quantile * stdev(values) / sqrt(len(values))


@dataclass(frozen=True)
class Comparison:
    """A place of a table minus another, paired by seed.

    Attributes:
        difference: mean, in the numbers that the table shows.
        half_width: of the interval of the mean difference; none for a single pair.
        p: of the two-sided paired t test; none for a single pair, and where all differences are equal.
        p_holm: the same, corrected for all tests of the table.
    """

    pairs: int
    difference: float
    half_width: float | None
    p: float | None
    p_holm: float | None = None

    def text(self, scale: Scale, plus_minus: str = "±") -> str:
        """`+1.20 ± 0.50, p = 0.012 (5)`; says why there is no test."""
        spread = "" if self.half_width is None else f" {plus_minus} {scale.text(self.half_width)}"
        why = "no test" if self.pairs < 2 else "all equal"
        test = why if self.p_holm is None else "p < 0.001" if self.p_holm < 0.001 else f"p = {self.p_holm:.3f}"
        return f"{self.difference:+.{scale.digits}f}{spread}, {test} ({self.pairs})"


def compared(values: Sequence[float], others: Sequence[float], percent: float) -> Comparison:
    """The mean difference of pairs, its interval and its test.

    Args:
        values, others: of the same seeds, in the same order, at least one.
    """
    differences = [one - other for one, other in zip(values, others, strict=True)]
    if len(differences) > 1 and max(differences) - min(differences) <= _SAME * max(map(abs, (*values, *others))):
        return Comparison(len(differences), mean(differences), 0.0, None)
    p = None
    if len(differences) > 1:
        from scipy.stats import ttest_rel

        p = float(ttest_rel(values, others).pvalue)  # pyright: ignore[reportAttributeAccessIssue]
    return Comparison(len(differences), mean(differences), half_width(differences, percent), p)


def corrected(found: dict[tuple[str, str], Comparison]) -> dict[tuple[str, str], Comparison]:
    """With p-values by Holm (1979): the chance of any false alarm in the table stays below the level that is read.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none is smaller than one before it.
    """
    tested = sorted((one.p, place) for place, one in enumerate(found.values()) if one.p is not None)
    keys, done, least = [*found], dict(found), 0.0
    for rank, (p, place) in enumerate(tested):
        least = max(least, min(1.0, (len(tested) - rank) * p))
        done[keys[place]] = replace(done[keys[place]], p_holm=least)
    return done
