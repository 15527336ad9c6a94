"""`glue-sparse report`: from folders of runs to one file, and a sentence where there is nothing to tell."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from glue_sparse.cli.main import main
from glue_sparse.records import results
from glue_sparse.reports.page import render
from synthetic_runs import swept


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of runs; pages are made without the library that draws, which takes seconds to come."""
    monkeypatch.setattr(render, "needed", lambda *_: SimpleNamespace(javascript_bundle=str))
    for one in swept(seeds=2):
        results.write(one.result, tmp_path / "runs" / one.name)
    return tmp_path / "runs"


def test_a_folder_of_runs_becomes_one_file(runs: Path, capsys: pytest.CaptureFixture[str]):
    out = runs.parent / "out" / "page.html"
    assert main(["report", str(runs), "--out", str(out), "--title", "Rates & more"]) == 0
    text = out.read_text()
    assert "Rates &amp; more" in text and "fish-0.005-0.001" in text and "Score over density" in text
    assert capsys.readouterr().out == f"written: {out}, {out.stat().st_size / 1e6:.1f} MB about 34 runs\n"


@pytest.mark.parametrize(("place", "said"), [("nowhere", "nowhere"), ("empty", "holds no results")])
def test_where_there_is_nothing_a_sentence_says_so(
    place: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path / place), "--out", str(tmp_path / "page.html")])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1 and line.startswith("error: ") and said in line
    assert not (tmp_path / "page.html").exists()


def test_it_loads_no_model():
    code = "import glue_sparse.cli.work.report, sys; print({'torch', 'transformers', 'scipy'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
