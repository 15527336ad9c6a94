"""Numbers of a report's charts, as lines of their data: what stands where, with its spread over seeds."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import mean
from typing import Any

from glue_sparse.records.results import Result
from glue_sparse.reports.page.lines import Line, Sweep

POINTS = 30
"""Of a curve, at most."""

Rows = list[tuple[Any, ...]]


def sweep(found: Sweep) -> Rows:
    """(family, value of the setting, mean, least and largest score, seeds)."""
    return [
        (name, value, *_spread(line.scores), len(line.found))
        for name, family in found.families.items()
        for value, line in family.items()
    ]


def scores(lines: Iterable[Line]) -> Rows:
    """(row, step, mean, least and largest score over seeds, seeds), for lines that were scored twice or more."""
    return [point for line in lines for point in _curve(line, [_scored(line, run) for run in line.found])]


def losses(lines: Iterable[Line]) -> Rows:
    """The same of the loss of training."""
    return [point for line in lines for point in _curve(line, [dict(run.logged("loss")) for run in line.found])]


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return mean(values), min(values), max(values)


def _scored(line: Line, run: Result) -> dict[float, float]:
    """Step -> main metric, where all splits were scored, as tables show it."""
    splits = [dict(run.logged(f"eval_{split}_{run.main_metric}")) for split in run.metrics]
    steps = [step for step in splits[0] if all(step in split for split in splits)]
    return {step: line.scale.shown(mean(split[step] for split in splits)) for step in steps}


def _curve(line: Line, runs: Sequence[dict[float, float]]) -> Iterator[tuple[Any, ...]]:
    """The mean over runs at steps that all have, thinned evenly."""
    steps = sorted(set(runs[0]).intersection(*runs[1:]))
    if len(steps) > POINTS:
        steps = [steps[round(place * (len(steps) - 1) / (POINTS - 1))] for place in range(POINTS)]
    if len(steps) > 1:
        yield from ((line.row, step, *_spread([run[step] for run in runs]), len(runs)) for step in steps)


def prices(lines: Iterable[Line], part: str, name: str) -> Rows:
    """(row, price, mean, least and largest score, method); `part` and `name` say which number of a result is it."""
    found = [(line, line.number(lambda run: getattr(run, part).get(name))) for line in lines]
    return [(line.row, price, *_spread(line.scores), line.first.method) for line, price in found if price]


def layers(lines: Iterable[Line]) -> tuple[Rows, list[str]]:
    """(row, layer, share of the row's active entries that lie there, share of the layer that is active, active
    entries, the kinds of tensors they lie in), and the layers in their order; means over seeds."""
    told = [(line, counts) for line in lines if all(run.active_by_tensor for run in line.found)
            if (counts := _by_layer([run.active_by_tensor for run in line.found]))]  # fmt: skip
    order = sorted({layer for _, counts in told for layer in counts}, key=_place)
    rows = []
    for line, counts in told:
        everything = sum(active for kinds in counts.values() for active, _ in kinds.values())
        for layer in [layer for layer in order if layer in counts and everything]:
            active, size = (sum(count[which] for count in counts[layer].values()) for which in (0, 1))
            share = active / size if size else 0.0
            rows.append((line.row, layer, active / everything, share, active, _told(counts[layer], everything)))
    return rows, order


def _by_layer(runs: Sequence[dict[str, dict[str, list[int]]]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Layer -> kind of tensor -> active entries and all entries, means over runs."""
    base = {kind.partition(".")[0] for kind in runs[0] if "*" in kind}
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for kind, layers in runs[0].items():
        for number in layers:
            counts = [run[kind][number] for run in runs if number in run.get(kind, {})]
            layer = number or _part(kind, base)
            means = mean(count[0] for count in counts), mean(count[1] for count in counts)
            found.setdefault(layer, {})[_short(kind)] = means
    return found


def _part(kind: str, base: set[str]) -> str:
    """What a tensor that is in no layer belongs to: embeddings, pooler, classifier."""
    first, *rest = kind.split(".")
    return rest[0] if first in base and len(rest) > 1 else first


def _short(kind: str) -> str:
    return kind.rpartition("*.")[2].removesuffix(".weight")


def _place(layer: str) -> tuple[int, list[int], str]:
    """Embeddings first, then layers by their numbers, then what stands above them."""
    if layer[:1].isdecimal():
        return 1, [int(number) for number in layer.split(".")], ""
    return (0 if "embed" in layer else 2), [], layer


def _told(kinds: dict[str, tuple[float, float]], everything: float) -> str:
    """Where most of a layer's active entries lie."""
    most = sorted(((active, kind) for kind, (active, _) in kinds.items() if active), reverse=True)[:4]
    return ", ".join(f"{kind} {active / everything:.1%}" for active, kind in most)
