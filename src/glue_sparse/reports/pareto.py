"""Loss over FLOPs: the front of a dense family and what sparse models save beside it (Dietrich et al., 2021).

arXiv 2108.06277, figures 3 and 8, tables 1 and A.8, appendix A.3. A sparse model is compared with the dense *family*:
with the loss of a dense model of its FLOPs (matched), and with the FLOPs of a dense model of its loss. Between two
dense models, the logarithm of the loss is a straight line in the logarithm of the FLOPs, which gives the matched losses
that the paper prints; beyond the ends of the family nothing is said. Loads no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glue_sparse.costs.bert_flops import FLOPS
from glue_sparse.records.results import Result
from glue_sparse.reports.groups import groups, names
from glue_sparse.writing.tables import csv_text, markdown

WITH_HEAD = "training_flops_per_example"
"""Among the FLOPs of a run's results: all products that were counted, head and all."""
Family = Literal["dense", "sparse"]


@dataclass(frozen=True)
class Point:
    """A model: the FLOPs of one training sequence and the validation loss in nats, mean and spread over seeds.

    The number of seeds is none where a source does not say it.
    """

    name: str
    family: Family
    flops: float
    loss: float
    std: float | None = None
    num_seeds: int | None = None
    series: str = ""
    """Points that belong together in a figure, such as those of one method."""


def of_runs(found: Sequence[Result], with_head: bool = False) -> list[Point]:
    """One point per setting; raises as `run_groups.groups`, and where a run counted no such FLOPs."""
    grouped = groups(found)
    key = WITH_HEAD if with_head else FLOPS
    points = []
    for group, name in zip(grouped, names(grouped), strict=True):
        family: Family = "dense" if group.is_dense else "sparse"
        series = name.removeprefix(group.model).strip()
        spread = group.std, len(group.found), series
        points.append(Point(name, family, group.flops(key), group.loss, *spread))
    return points


@dataclass(frozen=True)
class Front:
    """The dense models that no other dense model beats in both FLOPs and loss, by FLOPs."""

    points: tuple[Point, ...]

    @classmethod
    def of(cls, points: Sequence[Point]) -> "Front":
        """The front of the dense ones among some points.

        Raises:
            ValueError: there is none.
        """
        kept: list[Point] = []
        for point in sorted((p for p in points if p.family == "dense"), key=lambda p: (p.flops, p.loss)):
            if not kept or point.loss < kept[-1].loss:
                kept.append(point)
        if not kept:
            raise ValueError("a front needs dense models, and there is none among these runs: run `dense` rows as well")
        return cls(tuple(kept))

    def matched_loss(self, flops: float) -> float | None:
        """Loss of a dense model of so many FLOPs; none beyond the ends of the family."""
        first, last = self.points[0], self.points[-1]
        return self._between(flops, "flops", "loss") if first.flops <= flops <= last.flops else None

    def flops_at(self, loss: float) -> float | None:
        """FLOPs of a dense model of this loss; none beyond the ends of the family."""
        first, last = self.points[0], self.points[-1]
        return self._between(loss, "loss", "flops") if last.loss <= loss <= first.loss else None

    def _between(self, value: float, given: str, wanted: str) -> float:
        x, y = ([float(np.log(getattr(point, key))) for point in self.points] for key in (given, wanted))
        if x[0] > x[-1]:
            x, y = x[::-1], y[::-1]
        return float(np.exp(np.interp(np.log(value), x, y)))


@dataclass(frozen=True)
class Comparison:
    """A sparse model beside the dense front.

    Attributes:
        matched: loss of a dense model of its FLOPs, in nats.
        flops_ratio: its FLOPs over those of a dense model of its loss.
    """

    point: Point
    matched: float | None
    flops_ratio: float | None

    @property
    def eps_critical(self) -> float | None:
        """How many times as long as dense ones its FLOPs may take before a dense model of its loss is faster (A.3)."""
        return None if self.flops_ratio is None else 1 / self.flops_ratio


def compare(points: Sequence[Point]) -> list[Comparison]:
    """Every sparse point beside the front of the dense ones; raises as `Front.of`."""
    front, found = Front.of(points), []
    for point in (point for point in points if point.family == "sparse"):
        dense = front.flops_at(point.loss)
        found.append(Comparison(point, front.matched_loss(point.flops), None if dense is None else point.flops / dense))
    return found


HEADER = ("model", "1e9 FLOPs", "loss (seeds)", "matched", "loss - matched", "FLOPs ratio", "eps_critical")


def as_markdown(points: Sequence[Point], notes: Sequence[str] = ()) -> str:
    """The dense front and every sparse point beside it; raises as `Front.of`."""
    front = Front.of(points).points
    on = [(p.name, _flops(p), _loss(p), "on the front", "", "", "") for p in front]
    off = [(p.name, _flops(p), _loss(p), "behind the front", "", "", "") for p in points
           if p.family == "dense" and p not in front]  # fmt: skip
    sparse = [
        (c.point.name, _flops(c.point), _loss(c.point), _number(c.matched), _gap(c), _number(c.flops_ratio),
         _number(c.eps_critical, 2))
        for c in compare(points)
    ]  # fmt: skip
    alone = "No larger dense model has a lower loss, so the front is a single model and compares with its equals only: "
    told = (
        "Loss: validation, nats, mean ± sample standard deviation over seeds. FLOPs: of one training sequence.",
        "matched: loss of a dense model of equal FLOPs. FLOPs ratio: FLOPs over those of a dense model of equal loss; "
        "below 1 the sparse model needs fewer. eps_critical: its inverse, how many times as long a FLOP of the sparse "
        "model may take.",
        "Between dense models log(loss) is straight in log(FLOPs); - : beyond the ends of the dense front, which is "
        "not extrapolated.",
        *([alone + "train longer, or run other sizes."] if len(front) == 1 else []),
        *notes,
    )
    return "\n\n".join([markdown(HEADER, [*on, *off, *sparse]), "\n".join(f"* {line}" for line in told)]) + "\n"


def _flops(point: Point) -> str:
    return f"{point.flops / 1e9:.4g}"


def _loss(point: Point) -> str:
    spread = "" if point.std is None else f" ± {point.std:.3f}"
    return f"{point.loss:.3f}{spread}" + (f" ({point.num_seeds})" if point.num_seeds else "")


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _gap(found: Comparison) -> str:
    return "-" if found.matched is None else f"{found.point.loss - found.matched:+.3f}"


def as_csv(points: Sequence[Point]) -> str:
    """One line per point; empty where the front says nothing."""
    compared, front = {c.point.name: c for c in compare(points)}, Front.of(points).points
    numbers = ("flops", "loss", "std", "seeds", "on_front", "matched_loss", "flops_ratio", "eps_critical")
    lines = []
    for p in points:
        c = compared.get(p.name)
        found = (c.matched, c.flops_ratio, c.eps_critical) if c else (None, None, None)
        lines.append((p.name, p.family, p.flops, p.loss, p.std, p.num_seeds, p in front, *found))
    return csv_text(("model", "family", *numbers), lines)
