"""`glue-sparse tune`: trials of one run, what is chosen, what it says, and every mistake; runs take no time here."""

import re
import shlex
from pathlib import Path

import pytest

from glue_sparse.cli import tune
from glue_sparse.experiments import runner
from glue_sparse.experiments.cells import Cell, Grid
from glue_sparse.experiments.told import parse
from small_grids import diverged, finished

RUN = ("--task", "rte", "--model", "minilm", "--method", "fish", "--density", "0.02", "--data_dir", "some where")
RATES = ("--values", "learning_rate", "1e-2", "1e-4", "1e-3")


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[float, int], float | None]:
    """(learning rate, seed) -> the score of its trial, None for one that diverges; what is not there fails."""
    found: dict[tuple[float, int], float | None] = {}

    def run_here(grid: Grid, jobs: int) -> list[Cell]:
        failed = []
        for cell in runner.missing(grid):
            score = found.get((cell.arguments.training.learning_rate, cell.seed), -1)
            if score is None:
                diverged(cell)
            elif score >= 0:
                finished(cell, score)
            if score is None or score < 0:
                failed.append(cell)
        return failed

    monkeypatch.setattr(runner, "run_here", run_here)
    return found


def call(tmp_path: Path, *words: str) -> int:
    return tune.main([*RATES, *RUN, "--output_dir", str(tmp_path / "trials"), *words])


def test_every_trial_holds_training_data_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert call(tmp_path, "--seeds", "3", "5", "--hold_out", "40", "--dry_run") == 0
    told = [parse(shlex.split(line)[3:]) for line in capsys.readouterr().out.splitlines()]
    assert len(told) == 6 and {one.task.hold_out for one in told} == {40}
    assert {(one.training.learning_rate, one.training.seed) for one in told} == {
        (rate, seed) for rate in (1e-2, 1e-3, 1e-4) for seed in (3, 5)
    }
    assert {(one.method.method, one.method.density, one.task.data_dir) for one in told} == {("fish", 0.02, RUN[-1])}
    assert not (tmp_path / "trials").exists()


def test_the_best_mean_is_chosen_and_its_run_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: dict[tuple[float, int], float | None]
):
    scores |= {(1e-2, 0): 0.9, (1e-2, 1): None, (1e-3, 0): 0.5, (1e-3, 1): 0.7, (1e-4, 0): 0.55, (1e-4, 1): 0.6}
    assert call(tmp_path, "--seeds", "0", "1") == 0  # 0.9 counts for nothing, since another seed diverged
    out = capsys.readouterr().out
    assert re.search(r"\| 0.001 +\| \*\*60.00 ± 14.14 \(2\)\*\* +\| 2 ", out) and out.count("**") == 2
    (line,) = [line for line in out.splitlines() if line.startswith("train with it")]
    told = parse(shlex.split(line.partition(": glue-sparse train ")[2]))
    assert (told.training.learning_rate, told.task.hold_out, told.task.data_dir) == (1e-3, 0, "some where")
    assert "RTE; mean over 2 seeds" in out and "tried: a" not in out
    assert call(tmp_path, "--seeds", "0", "1") == 0 and capsys.readouterr().out == out  # nothing is run again


@pytest.mark.parametrize(
    ("best", "doubt"), [(1e-2, "largest that was tried: a larger"), (1e-4, "smallest that was tried: a smaller")]
)
def test_a_best_value_at_an_end_is_doubted(
    best: float, doubt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    scores: dict[tuple[float, int], float | None],
):  # fmt: skip
    scores |= {(rate, 0): 0.5 + (rate == best) / 4 for rate in (1e-2, 1e-3, 1e-4)}
    assert call(tmp_path) == 0
    out = capsys.readouterr().out
    assert f"the best learning_rate is the {doubt} one may be better still" in out and "one seed, with which" in out


def test_nothing_is_chosen_while_a_trial_is_missing_or_when_all_diverged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: dict[tuple[float, int], float | None]
):
    scores |= {(1e-2, 0): None, (1e-3, 0): 0.5}
    assert call(tmp_path) == 1
    out, err = capsys.readouterr()
    assert "train with it" not in out and "**" not in out and "diverged" in out
    assert "failed: fish-learning_rate-0.0001/rte/seed0, log: " in err and "0.01" not in err
    scores |= {(1e-4, 0): 0.6}
    assert call(tmp_path) == 0 and "--learning_rate 0.0001" in capsys.readouterr().out
    scores |= dict.fromkeys(scores)
    assert call(tmp_path / "again") == 1
    assert "no learning_rate is chosen, since all trials diverged: try other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*RATES, "--learning_rate", "1", *RUN], "--learning_rate is what --values tries: leave it out"),
        ([*RATES, "--lr", "1", *RUN], "--lr"),
        ([*RATES, "--seed", "1", *RUN], "the seeds of trials are those of --seeds: give that in the place of --seed"),
        (["--values", "learning_rate", *RUN], "names no number to try: learning_rate 1e-3 3e-3, for example"),
        (["--values", "learning_rate", "fast", *RUN], "takes a setting and numbers, as in learning_rate 1e-3"),
        (["--values", "learning_rate", "1", "1", *RUN], "names 1 twice"),
        (["--values", "learning_rte", "1", *RUN], "unknown argument --learning_rte; did you mean --learning_rate?"),
        ([*RATES, "--method", "fish", "--model", "minilm"], "a task is missing"),
        ([*RATES, "--task", "tweet", "--model", "minilm"], "tweet"),
        ([*RATES, *RUN, "--hold_out", "0"], "--hold_out"),
        (["--values", "density", "0.1", "2", *RUN[:6]], "density"),
    ],
)
def test_every_mistake_is_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    try:
        status = tune.main([*words, "--output_dir", "nowhere"])
    except SystemExit as ended:
        status = ended.code
    err = capsys.readouterr().err
    assert status and message in err and len(err.splitlines()) == 1 and len(err) < 320, err
    assert not Path("nowhere").exists()
