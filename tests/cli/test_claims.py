"""`glue-sparse claims`: from folders of runs to verdicts in four formats."""

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from entries import scored
from glue_sparse.cli import claims as command
from glue_sparse.records import results

CLAIMS = {
    "better": {"expect": "rises", "cells": [{"grid": "g", "sides": ["a", "b"]}]},
    "worse": {"expect": "rises", "cells": [{"grid": "g", "sides": ["b", "a"]}]},
    "open": {"expect": "near", "cells": [{"grid": "g", "sides": ["a", "c"]}]},
    "elsewhere": {"expect": "near", "cells": [{"grid": "other", "sides": ["a", "b"]}]},
}


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The claims and the runs of a small grid, as words of a command line."""
    usual = {"source": "table | 1", "matters": 1.0, "why": "so we say", "claim": "This holds."}
    stated = {name: {**usual, **one} for name, one in CLAIMS.items()}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"paper": "Me", "claims": stated}))
    scores = {"a": [70.0, 71.0, 72.5], "b": [75.0, 76.5, 77.0], "c": [70.0, 75.0, 70.0]}
    history = [{"step": 7, "loss": 1.0}, {"step": 40, "loss": 0.5}]
    for one in scored(scores, history=history, source={"rows": {"train": 1234}}):
        folder = tmp_path / "runs" / one.grid / one.model / one.row / one.column / f"seed{one.seed}"
        results.write(one.result, folder)
    return ["--claims", str(tmp_path / "mine.yaml"), "--runs", str(tmp_path / "runs")]


def test_a_table_says_the_verdict_on_each_claim(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert command.main(words) == 0
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    told = {line[0]: line[1:] for line in lines if len(line) == 8}
    assert {name: told[name][0] for name in CLAIMS} == {
        "better": "holds", "worse": "does not hold", "open": "undetermined", "elsewhere": "not run"
    }  # fmt: skip
    assert told["better"][1:] == ["+5 points", "+3.76 to +6.24", "1", "3", "-", "g"]
    assert int(told["open"][5]) > 3 and told["elsewhere"][1:] == ["-", "-", "1", "0", "-", "-"]


def test_all_formats_say_the_same(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("md", "csv", "json"):
        out = tmp_path / "out" / f"claims.{name}"
        assert command.main([*words, "--format", name, "--out", str(out)]) == 0
        assert "4 claims: 1 hold, 1 do not hold, 1 undetermined, 1 not run" in capsys.readouterr().out
    page = (tmp_path / "out" / "claims.md").read_text()
    assert page.startswith("4 claims: 1 hold, 1 do not hold, 1 undetermined, 1 not run.\n\n## Me\n")
    (line,) = (line for line in page.splitlines() if line.startswith("| This holds. (`better`)"))
    assert "| holds " in line and "grid g; small; a; 1,234 training rows; 40 steps |" in line
    behind = "table | 1. Measured: score, rises from a to b in g. 1 matters: so we say. By column: a +5."
    assert f"* `better`: {behind}" in page.splitlines()
    facts = json.loads((tmp_path / "out" / "claims.json").read_text())
    lines = [*csv.DictReader(io.StringIO((tmp_path / "out" / "claims.csv").read_text()))]
    assert [one["verdict"] for one in facts] == [line["verdict"] for line in lines]
    assert float(lines[0]["effect"]) == facts[0]["effect"] == pytest.approx(5.0) and lines[0]["seeds"] == "0, 1, 2"


def test_some_claims_and_what_is_not_there(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert command.main([*words, "--claim", "open"]) == 0
    assert "1 claim: 0 hold" in capsys.readouterr().out
    for more, said in (
        (["--claim", "opened"], "unknown claim 'opened'; did you mean open?"),
        (["--runs", "no/where"], "no/where"),
        (["--claims", "no.yaml"], "cannot read no.yaml"),
    ):
        with pytest.raises(SystemExit):
            command.main([*words, *more])
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line


def test_a_key_of_a_file_is_not_told_as_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "mine.yaml"
    for text, said in (("paper: me", "error: `claims` of "), ("paper: me\nclaims: {a: {source: s}}", "lacks `claim`")):
        path.write_text(text)
        with pytest.raises(SystemExit):
            command.main(["--claims", str(path)])
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
