"""Sweeps over learning rates, from result files: the best rate of each, over sparsity and over size; loads no model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, log
from statistics import mean

from glue_sparse.analysis.learning_rates import Optimum, factor, num_different, optimum, over_size, over_sparsity
from glue_sparse.costs.bert_flops import ACTIVE
from glue_sparse.experiments.told import told
from glue_sparse.records.results import Result
from glue_sparse.reports.groups import groups, names
from glue_sparse.writing.tables import csv_text, markdown

RATE = "learning_rate"
DENSE = "dense"
"""The series of dense models."""
LEAST_POINTS = 3
"""Best rates that a fit needs to say anything."""


@dataclass(frozen=True)
class Sweep:
    """Losses of one model and method over learning rates.

    Attributes:
        series: what is the same in sweeps of other models or sparsities.
        size: active linear weights of the encoder; none where runs do not say it.
        runs: (learning rate, validation loss in nats), means over seeds.
    """

    name: str
    series: str
    model: str
    sparsity: float
    size: float | None
    runs: tuple[tuple[float, float], ...]

    @property
    def best(self) -> Optimum | None:
        """Of the cubic; none where there are too few rates, or it has no minimum."""
        try:
            return optimum([rate for rate, _ in self.runs], [loss for _, loss in self.runs])
        except ValueError:
            return None

    @property
    def known(self) -> float | None:
        """The best rate where it lies between those that were tried."""
        return self.best.rate if self.best and self.best.inside else None


def of_runs(found: Sequence[Result]) -> list[Sweep]:
    """One per setting apart from the learning rate; raises as `run_groups.groups`."""
    by_rate = groups(found)
    alike = [replace(group, settings={k: v for k, v in group.settings.items() if k != RATE}) for group in by_rate]
    sweeps: dict[str, Sweep] = {}
    for group, name in zip(alike, names(alike), strict=True):
        first = group.found[0]
        rate = told(first, RATE) if first.learning_rate is None else first.learning_rate
        if rate <= 0:
            raise ValueError(f"{name} has a run at learning rate {rate:g}, which has no logarithm: leave it out")
        sparsity = 0.0 if group.density is None else 1 - group.density
        series = name.removeprefix(group.name).strip()
        sweep = Sweep(name, f"{group.method} {series}".strip(), group.model, sparsity, first.flops.get(ACTIVE), ())
        sweep = sweeps.setdefault(name, sweep)
        sweeps[name] = replace(sweep, runs=(*sweep.runs, (rate, group.loss)))
    return list(sweeps.values())


@dataclass(frozen=True)
class Fit:
    """A fit through the best rates of several sweeps.

    Attributes:
        what: the sweeps.
        over: `sparsity` or `size`.
        coefficients: of the logarithm of the rate: a, b, c of a s^2 + b s + c, or a, b of a log(N) + b.
        points: sparsity or size -> best rate.
    """

    what: str
    over: str
    coefficients: tuple[float, ...]
    points: dict[float, float]

    @property
    def formula(self) -> str:
        """The fit as a formula."""
        terms = ("s^2", "s", "") if self.over == "sparsity" else ("log N", "")
        parts = [f"{number:+.4g} {term}".strip() for number, term in zip(self.coefficients, terms, strict=True)]
        return f"log(rate) = {' '.join(parts)}"

    def rate(self, place: float) -> float:
        """The fitted rate at a sparsity or size."""
        powers = (place**2, place, 1) if self.over == "sparsity" else (log(place), 1)
        return exp(sum(number * power for number, power in zip(self.coefficients, powers, strict=True)))


def fits(sweeps: Sequence[Sweep]) -> list[Fit]:
    """Of each model over sparsities, dense among them, and of each method at one sparsity over models.

    Best rates outside their sweeps are left out, and so is every fit with fewer than three points.
    """
    known = [sweep for sweep in sweeps if sweep.known is not None]
    found = []
    for model, series in dict.fromkeys((s.model, s.series) for s in known if s.series != DENSE):
        here = [s for s in known if s.model == model and s.series in (series, DENSE)]
        found += _fits(f"{model}, {series}, and dense", here, ("sparsity", "size"))
    for series, sparsity in dict.fromkeys((s.series, s.sparsity) for s in known):
        here = [s for s in known if (s.series, s.sparsity) == (series, sparsity)]
        found += _fits(series + (f" at s={sparsity:.4g}" if sparsity else ""), here, ("size",))
    return found


def _fits(what: str, sweeps: Sequence[Sweep], over: Sequence[str]) -> list[Fit]:
    found = []
    for key in over:
        points = {getattr(s, key): s.known for s in sweeps if getattr(s, key) is not None and s.known is not None}
        if len(points) >= LEAST_POINTS:
            coefficients = over_sparsity(points) if key == "sparsity" else over_size(points)
            found.append(Fit(what, key, coefficients, points))
    return found


HEADER = ("sweep", "active weights", "rates", "best rate", "loss there", "times dense", "equation 3")
PAPER = (
    "Dietrich et al. (2021): log(rate) = 1.969 s^2 + 0.2905 s - 8.175 (equation 8, static Medium), -0.838 log N + 6.13 "
    "(equation 9, the same over N), -0.44 log N - 0.47 (dense models)."
)


def as_markdown(sweeps: Sequence[Sweep], notes: Sequence[str] = ()) -> str:
    """The best rates, then the fits through them.

    Raises:
        ValueError: no sweep has a best rate.
    """
    if not any(sweep.best for sweep in sweeps):
        raise ValueError("no sweep has a best learning rate: it takes runs of one setting at four rates at least, and "
                         "the best of them between the smallest and the largest")  # fmt: skip
    dense = {sweep.model: sweep.best for sweep in sweeps if sweep.series == DENSE}
    lines = [_line(sweep, dense.get(sweep.model)) for sweep in sweeps]
    told = (
        "best rate: minimum of a cubic in log(rate), by least squares, for four different rates at least; in "
        "parentheses where it lies outside those that were tried: such a rate is a guess and in no fit. Logarithms are "
        "natural, losses validation, in nats.",
        "times dense: best rate over that of the dense model; equation 3: exp(1.969 s^2 + 0.2905 s).",
        PAPER,
        *notes,
    )
    fitted = [(fit.what, f"{len(fit.points)}", fit.over, fit.formula) for fit in fits(sweeps)]
    parts = [markdown(HEADER, lines)]
    if fitted:
        parts += [markdown(("fit", "points", "over", "formula"), fitted)]
    return "\n\n".join([*parts, "\n".join(f"* {line}" for line in told)]) + "\n"


def _line(sweep: Sweep, dense: Optimum | None) -> tuple[str, ...]:
    best, size = sweep.best, "-" if sweep.size is None else f"{sweep.size:,.0f}"
    tried = f"{num_different([rate for rate, _ in sweep.runs])}"
    if best is None:
        return sweep.name, size, tried, "-", "-", "-", "-"
    rate = f"{best.rate:.3g}" if best.inside else f"({best.rate:.3g})"
    rule = (f"{best.rate / dense.rate:.2f}", f"{factor(sweep.sparsity):.2f}") if dense and sweep.sparsity else ("", "")
    return sweep.name, size, tried, rate, f"{best.loss:.3f}", *rule


def as_csv(sweeps: Sequence[Sweep]) -> str:
    """Every rate that was tried, and the best one of its sweep."""
    lines = []
    for sweep in sweeps:
        best = (sweep.best.rate, sweep.best.inside) if sweep.best else (None, None)
        by_rate = {rate: mean(loss for r, loss in sweep.runs if r == rate) for rate, _ in sorted(sweep.runs)}
        which = (sweep.name, sweep.model, sweep.sparsity, sweep.size)
        lines += [(*which, rate, loss, *best) for rate, loss in by_rate.items()]
    return csv_text(("sweep", "model", "sparsity", "active_weights", RATE, "loss", "best_rate", "inside"), lines)
