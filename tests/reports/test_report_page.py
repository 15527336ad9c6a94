"""The report: what it shows, that it is whole in one file, and that nothing in it runs that results bring."""

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest

from glue_sparse.records.archive import Entry
from glue_sparse.records.claims import Claim, Place
from glue_sparse.reports.claims.evidence import Evidence
from glue_sparse.reports.claims.verdicts import Decision, decided
from glue_sparse.reports.page import render, series
from glue_sparse.reports.page.charts import charts
from glue_sparse.reports.page.lines import sections, swept
from glue_sparse.writing.extras import needed
from hiding import hide
from synthetic_runs import RATES, result
from synthetic_runs import swept as runs

HOSTILE = "</script><script>alert(1)</script><img src=http://x.y/z onerror=alert(2)>\"'\\u2028{{ 7 * 7 }}"


class Page(HTMLParser):
    """What a browser would make of it: elements with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts.append((self.elements[-1][1], data))
        elif self.cdata_elem is None:
            self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def specs(self) -> list[dict[str, Any]]:
        return [json.loads(text) for attributes, text in self.scripts if attributes.get("type") == "application/json"]


def page(entries: Sequence[Entry], monkeypatch: pytest.MonkeyPatch, title: str = "runs", **more: Any) -> Page:
    """Without the two seconds that the drawing library takes to come."""
    monkeypatch.setattr(render, "needed", lambda *_: SimpleNamespace(javascript_bundle=lambda: "let library;"))
    return Page(render.html(entries, title, **more))


def rows_of(spec: dict[str, Any]) -> list[dict[str, str]]:
    return [*csv.DictReader(io.StringIO(spec["data"]["values"]))]


def test_a_row_of_the_table_has_what_it_is_sorted_by(monkeypatch: pytest.MonkeyPatch):
    found = page(runs(), monkeypatch)
    cells = [attributes["data-value"] for attributes in found.named("td")]
    lines = [cells[start : start + len(render.HEADER)] for start in range(0, len(cells), len(render.HEADER))]
    assert len(lines) == 17 and len({line[0] for line in lines}) == 17
    dense = next(line for line in lines if line[0] == "dense")
    assert float(str(dense[1])) == pytest.approx(85.3) and dense[3:6] == ["3", "1.0", "90000000"]
    text = " ".join(found.words)
    half = 4.302653 * 0.3 / 3**0.5  # the t quantile of two degrees of freedom, and the deviation of the three seeds
    assert f"85.30 ± {half:.2f}" in text and "90 MB" in text and "100.000%" in text
    assert "glue-sparse train --task sst2 --method dense --seed 2" in text and "torch 2.13.0" in text


def test_what_a_run_does_not_tell_is_a_dash_and_comes_last(monkeypatch: pytest.MonkeyPatch):
    told = result("fish", 0, 0.5, flops={}, active_by_tensor={}, history=[])
    found = page([Entry("g", "m", "fish", "sst2", 0, told)], monkeypatch)
    cells = [attributes["data-value"] for attributes in found.named("td")]
    assert cells[[name for name, _ in render.HEADER].index("FLOPs")] == "" and "-" in found.words
    assert found.specs == []


def test_scripts_run_by_their_digest_alone_and_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch):
    entries = [replace(one, grid=HOSTILE, model=HOSTILE, row=HOSTILE + one.row, column=HOSTILE,
                       result=replace(one.result, title=HOSTILE, method=HOSTILE, command=HOSTILE, date=HOSTILE,
                                      versions={HOSTILE: HOSTILE}, model=HOSTILE))
               for one in runs()]  # fmt: skip
    told: Any = dict.fromkeys(("id", "paper", "claim", "source", "why"), HOSTILE)
    claim = Claim(**told, cells=(Place(grid=HOSTILE, sides=(HOSTILE,)),), expect="rises", matters=1.0)
    strata = {(HOSTILE, HOSTILE, HOSTILE): 1.0}
    evidence = Evidence(claim.cells[0], {0: 1.0}, strata, HOSTILE, (entries[0].result,), (HOSTILE,))
    found = page(entries, monkeypatch, HOSTILE, decisions=[Decision(claim, "undetermined", evidence, 1.0)])
    ours = [text for attributes, text in found.scripts if attributes.get("type") != "application/json"]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in ours]
    policy = next(str(one["content"]) for one in found.named("meta") if "http-equiv" in one)
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert len(ours) == 2 and digests == allowed and "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert not {"img", "link", "iframe", "object", "form"} & {tag for tag, _ in found.elements}
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "src"], tag
        assert str(attributes.get("href") or "#").startswith("#")
    assert HOSTILE in found.words and "49" not in found.words
    assert any(row["row"].startswith(HOSTILE) for spec in found.specs for row in rows_of(spec))


def test_claims_that_the_runs_decide_have_verdicts_and_the_others_are_counted(monkeypatch: pytest.MonkeyPatch):
    told: Any = {"paper": "A paper", "source": "table 1", "expect": "rises", "why": "rounding", "matters": 1.0}
    sides = ("random-0.005-0.001", "fish-0.005-0.001")
    claims = [Claim(id=grid, claim=text, cells=(Place(grid=grid, sides=sides),), **told)
              for grid, text in (("rates", "FISH over random"), ("other", "Another"))]  # fmt: skip
    found = page(runs(), monkeypatch, decisions=decided(claims, runs()))
    cells = [attributes.get("data-value") for attributes in found.named("td")][:6]
    assert cells[:2] == ["FISH over random", "holds"] and float(str(cells[2])) == pytest.approx(5) and cells[5] == "3"
    assert [one["data-verdict"] for one in found.named("span")] == ["holds"]
    text = " ".join(found.words)
    assert "A paper: table 1" in text and "1 more have no runs here" in text and "Another" not in text


def test_a_sweep_is_drawn_over_its_setting_and_then_over_that_of_its_best():
    (section,) = sections(runs())
    (rates,), best = swept(section.lines)
    assert rates.setting == "learning_rate" and {*rates.families} == {"fish-0.001", "fish-0.005", "random-0.001",
                                                                     "random-0.005"}  # fmt: skip
    assert all([*family] == [*RATES] for family in rates.families.values())
    (densities,), left = swept(best)
    assert densities.setting == "density" and {line.row for line in left} == {"fish", "random", "dense"}
    fish = densities.families["fish"]
    assert [*fish] == [0.001, 0.005] and fish[0.005].found[0].learning_rate == 0.001  # not the last, that is worse
    titles = [chart.title for chart in charts(section.lines)]
    assert titles[:2] == ["Score over learning rate", "Score over density"]


def test_rows_that_only_look_like_a_sweep_are_none():
    """Numbers in names that no setting has, as of N:M patterns or layers."""
    entries = [Entry("g", "m", f"top-{number}", "sst2", 0, result("fish", 0, 0.5)) for number in (1, 2)]
    assert swept(sections(entries)[0].lines)[0] == []


def test_a_curve_is_the_mean_over_seeds_with_its_span():
    (section,) = sections(runs())
    fish = [line for line in section.lines if line.row == "fish-0.005-0.001"]
    rows = series.scores(fish)
    assert [row[1] for row in rows] == [10.0 * step for step in range(1, 21)]
    last = [100 * run.logged("eval_validation_accuracy")[-1][1] for run in fish[0].found]
    assert rows[-1][2:] == pytest.approx((sum(last) / 3, min(last), max(last), 3))
    assert len(series.losses(fish)) == 20


def test_long_curves_are_thinned_and_keep_their_ends():
    history = [{"step": step, "loss": 1 / step} for step in range(1, 1001)]
    (section,) = sections([Entry("g", "m", "fish", "sst2", 0, result("fish", 0, 0.5, history=history))])
    steps = [row[1] for row in series.losses(section.lines)]
    assert len(steps) == series.POINTS and (steps[0], steps[-1]) == (1, 1000) and len({*steps}) == len(steps)


def test_the_map_of_layers_adds_up_for_each_row():
    (section,) = sections(runs())
    rows, order = series.layers(section.lines)
    assert order == ["embeddings", "0", "1", "2", "3", "4", "5", "classifier"]
    assert len(rows) == 17 * len(order)
    for line in section.lines:
        assert sum(row[2] for row in rows if row[0] == line.row) == pytest.approx(1)
    told = next(row for row in rows if row[1] == "5")
    assert told[3] == pytest.approx((60 + 70 + 80) / (3 * 147456)) and told[4] == 210
    assert told[5].startswith("intermediate.dense ")


LARGEST = 3_000_000, 1_200_000
"""Bytes of a page of several hundred runs, and of what it may have of them for the library that draws."""


def many() -> list[Entry]:
    return [one for grid in ("a", "b") for one in runs(grid, ("sst2", "mrpc", "qnli"))]


def test_three_hundred_runs_leave_room_for_the_library(monkeypatch: pytest.MonkeyPatch):
    assert len(many()) > 300
    monkeypatch.setattr(render, "needed", lambda *_: SimpleNamespace(javascript_bundle=str))
    text = render.html(many(), "many")
    assert len(text.encode()) < LARGEST[0] - LARGEST[1]
    assert text.count("application/json") >= 2 * 3 * 6


@pytest.mark.slow
def test_the_library_is_in_the_page_and_draws_every_kind_of_chart():
    library = needed("vl_convert", "a report", "report")
    text = render.html(many(), "many")
    assert "vegaEmbed" in text and len(library.javascript_bundle().encode()) < LARGEST[1]
    assert len(text.encode()) < LARGEST[0]
    specs = Page(text).specs
    kinds = {json.dumps([spec.get("mark"), spec.get("layer", [{}])[0].get("mark")]): spec for spec in specs}
    assert len(kinds) == 3
    for spec in kinds.values():
        assert library.vegalite_to_vega(spec)["marks"]


def test_without_the_extra_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    hide("vl_convert", monkeypatch)
    with pytest.raises(ValueError, match=r'a report needs a package .* pip install "glue_sparse\[report\]"'):
        render.html(runs(), "none")
