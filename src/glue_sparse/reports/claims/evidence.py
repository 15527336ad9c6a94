"""What the runs of a place say of a claim: one difference for each seed, paired, and where it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import inf
from statistics import mean

from glue_sparse.records.claims import Claim, Place
from glue_sparse.records.results import Result
from glue_sparse.reports.claims import measures
from glue_sparse.reports.claims.runs import Runs, Stratum, strata

LEAST_SEEDS = 3
"""With fewer, no verdict is given."""


@dataclass(frozen=True)
class Evidence:
    """What one place says.

    Attributes:
        differences: seed -> mean over strata of the rise from the first side to the last, or of what the only side has
            beyond `against`.
        by_stratum: column, text for `{}`, value of a sweep -> mean over seeds of the same.
        unit: of all of these.
        runs: that were compared.
        notes: what was left out, and why.
        coarseness: how far each difference may be from what finer sweeps would give, see `Stratum.coarseness`.
    """

    place: Place
    differences: dict[int, float]
    by_stratum: dict[tuple[str, str, str], float]
    unit: str
    runs: tuple[Result, ...]
    notes: tuple[str, ...] = ()
    coarseness: float = 0.0


def gathered(claim: Claim, runs: Runs) -> Evidence | None:
    """Of the first place that has enough seeds, or else of the one with most; none where nothing was run.

    Raises:
        ValueError: scores that have no common unit.
    """
    found = [evidence for place in claim.cells if (evidence := of_place(claim, place, runs)) is not None]
    enough = [one for one in found if len(one.differences) >= LEAST_SEEDS]
    return enough[0] if enough else max(found, key=lambda one: len(one.differences), default=None)


def of_place(claim: Claim, place: Place, runs: Runs) -> Evidence | None:
    """What a place says, without differences where its runs cannot be compared; none where it has no runs."""
    all_strata, notes = strata(place, runs), list[str]()
    enough = [one for one in all_strata if len(one.seeds) >= LEAST_SEEDS]
    if enough and (few := [one.name for one in all_strata if one not in enough]):
        notes.append(f"fewer than {LEAST_SEEDS} seeds, left out: {', '.join(few)}")
    parts = enough or all_strata
    seeds = sorted(frozenset.intersection(*(one.seeds for one in parts))) if parts else []
    if parts and not seeds:
        notes.append("no seed has runs of every side in every column")
    by_stratum: dict[tuple[str, str, str], list[float]] = {}
    compared: list[Result] = []
    coarse = [0.0]
    for part in parts:
        lines = part.lines(seeds)
        values = [_rise(claim, line) for line in lines.values()]
        told = [value for value in values if value is not None]
        if reason := _left_out(part, lines, len(told) < len(values)):
            notes.append(reason)
            continue
        by_stratum[part.key] = told
        if claim.measure in measures.TRIED:
            coarse += [part.coarseness(line, partial(measures.value, claim.measure)) for line in lines.values()]
        compared += [run for line in lines.values() for run in line]
    units = {measures.unit(claim.measure, run) for run in compared}
    if len(units) > 1:
        raise ValueError(f"claim {claim.id} has scores in {' and in '.join(sorted(units))} in grid {place.grid}, which "
                         "have no mean: give `columns` of one kind")  # fmt: skip
    if not parts:
        return None
    found = [*zip(*by_stratum.values(), strict=True)]
    differences = {seed: mean(values) for seed, values in zip(seeds, found, strict=False)}
    means = {key: mean(values) for key, values in by_stratum.items() if values}
    if max(coarse):
        notes.append(_coarse(max(coarse)))
    return Evidence(place, differences, means, "".join(units), tuple(compared), tuple(notes), max(coarse))


def _coarse(by: float) -> str:
    if by == inf:
        return "a side did best at the first or last value that was tried, so its best is not known"
    return f"values were tried so far apart that the interval is wider by {by:.2g} on either side"


def _left_out(part: Stratum, lines: dict[int, tuple[Result, ...]], lacks: bool) -> str | None:
    if not all(lines.values()):
        return f"too few seeds of the same values of its sweeps, left out: {part.name}"
    for line in lines.values():
        if any((run.title, run.main_metric, run.source) != (one.title, one.main_metric, one.source)
               for one, run in pairwise(line)):  # fmt: skip
            return f"the sides saw different data, left out: {part.name}"
    return f"not every run holds what is measured, left out: {part.name}" if lacks else None


def _rise(claim: Claim, line: Sequence[Result]) -> float | None:
    """How far the line of least squares through the sides, one apart, rises from the first to the last.

    Of two sides, this is their difference; of a single one, its value.
    """
    values = [_beyond(claim, run) for run in line]
    told = [one for one in values if one is not None]
    if not told or len(told) < len(values):
        return None
    if len(told) == 1:
        return told[0]
    places = [index - (len(told) - 1) / 2 for index in range(len(told))]
    slope = sum(x * y for x, y in zip(places, told, strict=True)) / sum(x * x for x in places)
    return slope * (len(told) - 1)


def _beyond(claim: Claim, run: Result) -> float | None:
    """The measure, less what it is held against."""
    value, against = measures.value(claim.measure, run), claim.against
    less = measures.value(against, run) if isinstance(against, str) else against or 0.0
    return None if value is None or less is None else value - less
