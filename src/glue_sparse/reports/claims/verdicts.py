"""Verdicts: does a claim hold, by the paired t interval of its effect and the least effect that matters.

Two findings decide, of an effect that is positive where the claim says that something rises:

* a rise is *there*: the 95 % interval lies above 0, and the mean is at least what matters;
* a rise is *ruled out*: the interval lies below what matters.

`rises` holds where a rise is there, and does not where one is ruled out. `does not fall` holds where a fall is ruled
out, and does not where one is there. `near` holds where both are ruled out (two one-sided tests, by the 95 % interval
where the usual one is that of 90 %), and does not where either is there. All else is undetermined.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isinf
from statistics import mean, stdev
from typing import Literal

import numpy as np

from glue_sparse.records.archive import Entry
from glue_sparse.records.claims import Claim, Expect
from glue_sparse.reports.claims import measures
from glue_sparse.reports.claims.evidence import LEAST_SEEDS, Evidence, gathered
from glue_sparse.reports.claims.runs import Runs
from glue_sparse.reports.statistics import half_width
from glue_sparse.writing.words import prefixed

PERCENT, POWER = 95, 0.8
MOST_SEEDS = 1000
"""To which a calculation of power goes."""

Verdict = Literal["holds", "does not hold", "undetermined", "not run"]
VERDICTS: tuple[Verdict, ...] = ("holds", "does not hold", "undetermined", "not run")


@dataclass(frozen=True)
class Decision:
    """A claim and what our runs say of it.

    Attributes:
        evidence: none where nothing was run.
        effect: mean over seeds, in the evidence's unit.
        low, high: its interval; none for a single seed, or where the best value of a sweep is not known.
        needed: of what is undetermined, seeds that it would take; none where the runs do not say or finer sweeps would
            tell more, infinite where they are more than `MOST_SEEDS`.
    """

    claim: Claim
    verdict: Verdict
    evidence: Evidence | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def seeds(self) -> list[int]:
        """That every side has."""
        return [*self.evidence.differences] if self.evidence else []

    @cached_property
    def needed(self) -> float | None:
        """Of what is undetermined, the seeds that it would take; see `seeds_needed`."""
        if self.evidence is None or self.verdict != "undetermined" or self.evidence.coarseness:
            return None
        return seeds_needed([*self.evidence.differences.values()], self.claim.matters, self.claim.expect)


def decided(claims: Iterable[Claim], entries: Iterable[Entry]) -> list[Decision]:
    """The verdict on each claim.

    Raises:
        ValueError: a place whose scores have no common unit, or an unknown measure.
    """
    claims, runs = [*claims], Runs(entries)
    for claim in claims:
        with prefixed(f"claim {claim.id}"):
            measures.check(claim.measure, "measure")
            if isinstance(claim.against, str):
                measures.check(claim.against, "against")
    return [_decision(claim, gathered(claim, runs)) for claim in claims]


def _decision(claim: Claim, evidence: Evidence | None) -> Decision:
    notes = evidence.notes if evidence else ()
    if evidence is None or not evidence.differences:
        return Decision(claim, "not run", notes=notes)
    differences = [*evidence.differences.values()]
    effect, half = mean(differences), half_width(differences, PERCENT)
    if half is None or isinf(evidence.coarseness):
        return Decision(claim, "undetermined", evidence, effect, notes=notes)
    half += evidence.coarseness
    low, high = effect - half, effect + half
    found = verdict(claim.expect, effect, low, high, claim.matters) if len(differences) >= LEAST_SEEDS else None
    return Decision(claim, found or "undetermined", evidence, effect, low, high, notes)


def verdict(expect: Expect, effect: float, low: float, high: float, matters: float) -> Verdict | None:
    """By the rules above; None where they do not decide.

    Args:
        low, high: of the interval of `effect`.
        matters: above 0.
    """
    rise_there, rise_ruled_out = low > 0 and effect >= matters, high < matters
    fall_there, fall_ruled_out = high < 0 and effect <= -matters, low > -matters
    if expect == "rises":
        holds, fails = rise_there, rise_ruled_out
    elif expect == "does not fall":
        holds, fails = fall_ruled_out, fall_there
    else:
        holds, fails = rise_ruled_out and fall_ruled_out, rise_there or fall_there
    return "holds" if holds else "does not hold" if fails else None


def seeds_needed(differences: Sequence[float], matters: float, expect: Expect, power: float = POWER) -> float | None:
    """The least number of seeds, three or more, whose interval tells an effect of `matters` from none.

    Exact for normal differences of the standard deviation that these have: the paired t test's power by the noncentral
    t distribution, two-sided at 5 %. `near` has to rule out both directions, so each may be missed half as often.

    Args:
        differences: one for each seed.
    Returns:
        None for fewer than two differences, infinity for more than `MOST_SEEDS`.
    """
    if len(differences) < 2:
        return None
    if (spread := stdev(differences)) == 0:
        return LEAST_SEEDS
    from scipy.stats import nct, t  # half a second, for those who ask

    wanted = 1 - (1 - power) / 2 if expect == "near" else power
    counts = np.arange(LEAST_SEEDS, MOST_SEEDS + 1)
    quantiles = t.ppf((1 + PERCENT / 100) / 2, counts - 1)
    enough = nct.sf(quantiles, counts - 1, matters * np.sqrt(counts) / spread) >= wanted
    return float(counts[np.argmax(enough)]) if enough.any() else inf
