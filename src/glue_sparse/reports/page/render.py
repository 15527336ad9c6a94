"""From runs to the page: one file of HTML that asks nothing of the network, and runs no text of others."""

from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from glue_sparse.records.archive import Entry
from glue_sparse.records.results import Result
from glue_sparse.reports.claims.verdicts import Decision
from glue_sparse.reports.page import verdicts
from glue_sparse.reports.page.charts import charts
from glue_sparse.reports.page.lines import PERCENT, Line, Section, sections
from glue_sparse.writing.extras import needed

FOLDER = Path(__file__).parent


def html(entries: Sequence[Entry], title: str, decisions: Sequence[Decision] = ()) -> str:
    """The page of runs.

    Args:
        decisions: on claims, by these runs.
    Raises:
        ValueError: the extra `report` is not installed.
    """
    library = needed("vl_convert", "a report", "report").javascript_bundle()
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    scripts = [_script(text) for text in (library, (FOLDER / "page.js").read_text(encoding="utf-8"))]
    told = [_section(place, section) for place, section in enumerate(sections(entries))]
    found = [entry.result for entry in entries]
    return environment.get_template("page.html.j2").render(
        title=title, scripts=scripts, hashes=[_hash(text) for text in scripts], sections=told,
        style=(FOLDER / "page.css").read_text(encoding="utf-8"),
        summary=_summary(found, told), claims=verdicts.told(decisions), percent=f"{PERCENT:g}",
    )  # fmt: skip


def _script(text: str) -> str:
    """Our own text, as the inside of an element; what would end that is written in another way."""
    return "\n".join(text.replace("</script", "<\\/script").splitlines())


def _hash(text: str) -> str:
    """By which a browser knows a script that may run: all others may not."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _summary(found: Sequence[Result], told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    days = sorted(run.date[:10] for run in found if run.date)
    versions = Counter(f"{name} {number}" for run in found for name, number in run.versions.items())
    hours = sum(sum(run.seconds.values()) for run in found) / 3600
    dates = "" if not days else days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return {
        "facts": {
            "runs": f"{len(found):,}", "grids": str(len({one["grid"] for one in told})),
            "methods": str(len({run.method for run in found})), "data sets": str(len({run.title for run in found})),
            "seeds": _range([run.seed for run in found]), "hours of runs": f"{hours:,.1f}", "dates": dates or "-",
        },
        "versions": [(name, count) for name, count in sorted(versions.items())],
    }  # fmt: skip


def _range(numbers: Iterable[int]) -> str:
    distinct = sorted({*numbers})
    return ", ".join(map(str, distinct)) if len(distinct) < 4 else f"{distinct[0]} to {distinct[-1]}"


def _section(place: int, section: Section) -> dict[str, Any]:
    lines = [_line(line, section.titles[line.column]) for line in section.lines]
    drawn = [(section.titles[column], charts(found)) for column, found in section.columns.items()]
    return {
        "id": f"grid-{place}", "grid": section.grid or "runs of no grid", "model": section.model,
        "header": HEADER, "lines": lines, "columns": drawn, "runs": sum(len(one.found) for one in section.lines),
    }  # fmt: skip


HEADER = (
    ("row", "text"), ("score", "number"), ("data", "text"), ("seeds", "number"), ("trained", "number"),
    ("stored", "number"), ("state", "number"), ("FLOPs", "number"), ("seconds", "number"),
)  # fmt: skip
"""Columns of a section's table, and how they are sorted."""


def _line(line: Line, title: str) -> dict[str, Any]:
    """A row of the table: (value to sort by, text) of each column, and what stands behind it."""
    scale, score = line.scale, mean(line.scores)
    width = "" if line.half_width is None else f" ± {scale.text(line.half_width)}"
    trained = line.number(lambda run: run.trained_entries / run.cost["num_entries"])
    cells = [
        (line.row, line.row), (score, scale.text(score) + width), (title, title),
        (len(line.found), str(len(line.found))), (trained, _or_dash(trained, ".3%")),
    ]  # fmt: skip
    for part, name in (("cost", "stored_bytes"), ("cost", "state_bytes"), ("flops", "training_flops")):
        value = line.number(lambda run, part=part, name=name: getattr(run, part).get(name))
        cells.append((value, _large(value, "" if part == "flops" else "B")))
    seconds = line.number(lambda run: sum(run.seconds.values()))
    cells.append((seconds, _or_dash(seconds, ",.0f")))
    told = [{"value": "" if value is None else value, "text": text} for value, text in cells]
    return {"cells": told, "runs": [_run(run, line) for run in line.found], "method": line.first.method}


def _run(run: Result, line: Line) -> dict[str, str]:
    splits = ", ".join(
        f"{split} {line.scale.text(line.scale.shown(metrics[run.main_metric]))}"
        for split, metrics in run.metrics.items()
    )
    return {
        "seed": str(run.seed), "scores": splits, "command": run.command, "date": run.date,
        "versions": ", ".join(f"{name} {number}" for name, number in sorted(run.versions.items())),
    }  # fmt: skip


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _large(value: float | None, unit: str) -> str:
    """With a prefix, three digits: 1.23 MB."""
    if value is None:
        return "-"
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if value < 999.5 or prefix == "E":
            break
        value /= 1000
    return f"{value:.3g} {prefix}{unit}".strip()
