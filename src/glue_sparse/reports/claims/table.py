"""Verdicts as a table on the terminal, as a page, as CSV and as JSON."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isinf
from pathlib import Path
from statistics import mean
from typing import Any

from glue_sparse.records.results import Result
from glue_sparse.reports.claims.verdicts import MOST_SEEDS, VERDICTS, Decision
from glue_sparse.writing import tables
from glue_sparse.writing.sentences import one_line

HEADER = ("claim", "verdict", "effect", "95% interval", "matters", "seeds", "seeds to decide", "decided by")


def summary(decisions: Sequence[Decision]) -> str:
    """How many claims have which verdict."""
    counts = Counter(one.verdict for one in decisions)
    named = dict(zip(VERDICTS, ("hold", "do not hold", "undetermined", "not run"), strict=True))
    told = ", ".join(f"{counts[verdict]} {text}" for verdict, text in named.items())
    return f"{len(decisions)} claim{'' if len(decisions) == 1 else 's'}: {told}"


def as_text(decisions: Sequence[Decision]) -> str:
    """A line for each claim, by its id, and how many have which verdict."""
    lines = [(one.claim.id, *cells(one), one.evidence.place.grid if one.evidence else "-") for one in decisions]
    return f"{tables.markdown(HEADER, lines)}\n\n{summary(decisions)}"


def as_markdown(decisions: Sequence[Decision]) -> str:
    """A page: how many have which verdict, a table for each paper, and what stands behind each claim."""
    parts = [summary(decisions) + "."]
    for paper in dict.fromkeys(one.claim.paper for one in decisions):
        own = [one for one in decisions if one.claim.paper == paper]
        lines = [(f"{one.claim.claim} (`{one.claim.id}`)", *cells(one), scale(one) or "-") for one in own]
        behind = "\n".join(f"* `{one.claim.id}`: {one_line(_behind(one))}" for one in own)
        parts += [tables.heading(paper), tables.markdown(HEADER, lines), behind]
    return "\n\n".join(parts)


def as_csv(decisions: Sequence[Decision]) -> str:
    """A line for each claim, numbers in full."""
    facts = [_facts(one) for one in decisions]
    lines = [{**one, "seeds": _words(one["seeds"]), "notes": "; ".join(one["notes"]),
              "by_stratum": json.dumps(one["by_stratum"])} for one in facts]  # fmt: skip
    return tables.csv_text([*lines[0]] if lines else (), (one.values() for one in lines))


def as_json(decisions: Sequence[Decision]) -> str:
    """A list of objects, numbers in full."""
    return json.dumps([_facts(one) for one in decisions], indent=1, ensure_ascii=False) + "\n"


def scale(one: Decision) -> str:
    """What the verdict is of: models, tasks, rows they trained on, and steps, as the runs have them."""
    if one.evidence is None:
        return ""
    runs = one.evidence.runs
    rows = [*_numbers(found.get("train") for run in runs if isinstance(found := run.source.get("rows"), dict))]
    steps = [step for run in runs if (step := _steps(run))]
    parts = [
        f"grid {one.evidence.place.grid}",
        _words(dict.fromkeys(Path(run.model).name for run in runs)),
        _words(dict.fromkeys(run.task for run in runs)),
        f"{_span(rows)} training rows" if rows else "",
        f"{_span(steps)} steps" if steps else "",
    ]
    return "; ".join(part for part in parts if part)


def cells(one: Decision) -> tuple[str, ...]:
    """Verdict, effect, interval, what matters, seeds, and seeds that it would take."""
    claim, evidence = one.claim, one.evidence
    if evidence is None or one.effect is None:
        return one.verdict, "-", "-", f"{claim.matters:g}", "0", "-"
    interval = "-" if one.low is None or one.high is None else f"{_signed(one.low)} to {_signed(one.high)}"
    return (one.verdict, f"{_signed(one.effect)} {evidence.unit}", interval, f"{claim.matters:g}",
            str(len(one.seeds)), _needed(one.needed) or "-")  # fmt: skip


def _behind(one: Decision) -> str:
    """Source, sides, what is measured, why an effect matters, and the effect in each stratum."""
    claim, evidence = one.claim, one.evidence
    place = evidence.place if evidence else claim.cells[0]
    measured = claim.measure + (f" less {claim.against}" if claim.against is not None else "")
    words = [
        f"{claim.source}.",
        f"Published: {claim.published}." if claim.published else "",
        f"Measured: {measured}, {claim.expect} from {' to '.join(place.sides)} in {place.grid}" + _how(one) + ".",
        f"{claim.matters:g} matters: {claim.why}.",
    ]
    if evidence:
        words += _parts(evidence.by_stratum)
    words += [f"{note[0].upper()}{note[1:]}." for note in one.notes]
    return " ".join(word for word in words if word)


def _parts(by_stratum: Mapping[tuple[str, ...], float]) -> list[str]:
    """The mean effect in each column, and for each of what else there are several."""
    found = []
    for index, what in enumerate(("column", "{}", "value")):
        groups: dict[str, list[float]] = {}
        for key, effect in by_stratum.items():
            groups.setdefault(key[index], []).append(effect)
        if len(groups) > 1 or what == "column":
            found.append(f"By {what}: {', '.join(f'{name} {_signed(mean(some))}' for name, some in groups.items())}.")
    return found


_AT = {
    "equal": ", mean over the values that all sides have",
    "best": ", each side at its best value, which the other seeds choose",
    "own best": ", each side at its best value on the same seed",
}


def _how(one: Decision) -> str:
    place = one.evidence.place if one.evidence else one.claim.cells[0]
    return (
        (f" for {_words(map(str, place.each))}" if place.each else "")
        + (_AT[place.at] if place.at else "")
        + (f", of {_words(map(str, place.values))}" if place.values else "")
    )


def _facts(one: Decision) -> dict[str, Any]:
    claim, evidence = one.claim, one.evidence
    found = evidence.by_stratum if evidence else {}
    return {
        "id": claim.id, "claim": claim.claim, "paper": claim.paper, "source": claim.source,
        "published": claim.published, "verdict": one.verdict, "effect": one.effect, "low": one.low, "high": one.high,
        "unit": evidence.unit if evidence else None, "matters": claim.matters, "why": claim.why,
        "expect": claim.expect, "measure": claim.measure, "against": claim.against, "seeds": one.seeds,
        "seeds_to_decide": _needed(one.needed), "grid": evidence.place.grid if evidence else None,
        "by_stratum": {" ".join(key).strip(): effect for key, effect in found.items()}, "scale": scale(one),
        "notes": [*one.notes],
    }  # fmt: skip


def _needed(count: float | None) -> str | None:
    return None if count is None else f"> {MOST_SEEDS}" if isinf(count) else f"{count:g}"


def _signed(number: float) -> str:
    return f"{round(number, 9) + 0.0:+.3g}"  # equal scores differ by rounding, which is none of the effect


def _words(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names))


def _span(numbers: Sequence[float]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,.0f}" if least == most else f"{least:,.0f} to {most:,.0f}"


def _steps(run: Result) -> float:
    """Of the last entry of the history that has a number for it."""
    return max(_numbers(log.get("step") for log in run.history), default=0)


def _numbers(values: Iterable[Any]) -> Iterator[float]:
    return (value for value in values if isinstance(value, int | float))
