"""Settings chosen on held-out data: trials, choices, what waits, and what tables say; from made-up result files."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

import small_grids
from glue_sparse.cli import table
from glue_sparse.experiments import grids, runner, told, tuning
from glue_sparse.experiments.cells import Cell, Grid
from glue_sparse.records import results
from glue_sparse.reports import tables
from glue_sparse.reports.sheet import Sheet
from small_grids import diverged, finished

TUNE: dict[str, Any] = {"learning_rate": [0.4, 0.2, 0.08], "hold_out": 10, "seed": 3}
GRID: dict[str, Any] = {
    "rows": {"fish": {"method": "fish", "sweep": {"density": [0.01, 0.1]}}, "dense": {"method": "dense"}},
    "tune": TUNE,
}
IMAGES: dict[str, Any] = {
    "base": {"model": "resnet9", "num_train_epochs": 2},
    "columns": {"rte": {"task": "cifar10"}, "cola": {"task": "cifar10", "num_train_epochs": 1}},
}
"""Two columns of one task, which keep the names of the small grid."""
BEST = {("fish-0.01", "rte"): 0.2, ("fish-0.1", "rte"): 0.4, ("dense", "rte"): 0.08}
"""By the scores that `try_all` makes up; cola has 0.08 everywhere."""


def write(folder: Path, **changes: Any) -> Path:
    return small_grids.write(folder, **{**IMAGES, **changes})


def read(folder: Path, **changes: Any) -> Grid:
    return small_grids.read(folder, **{**IMAGES, **changes})


def trials_of(grid: Grid) -> Grid:
    assert grid.tuned
    return grid.tuned.trials


def rate(cell: Cell) -> float:
    return cell.arguments.training.learning_rate


def score(cell: Cell) -> float:
    """Of a trial: highest for the value that should be chosen."""
    row = cell.row.partition("-learning_rate-")[0]
    return 0.9 if rate(cell) == BEST.get((row, cell.column), 0.08) else 0.5


def try_all(grid: Grid) -> None:
    for cell in trials_of(grid).cells:
        finished(cell, score(cell))


def rates(grid: Grid) -> dict[tuple[str, str], set[float]]:
    return {place: {rate(cell) for cell in grid.at(*place)} for place in grid.places}


def test_there_is_a_trial_for_every_row_column_and_value(tmp_path: Path):
    grid = read(tmp_path, **GRID)
    trials = trials_of(grid)
    assert len(trials.cells) == 3 * 2 * 3 and trials.name == "small/tune" and trials.seeds == (3,)
    first = trials.at("fish-0.01-learning_rate-0.4", "rte")[0]
    assert first.folder == tmp_path / "runs/tune/resnet9/fish-0.01-learning_rate-0.4/rte/seed3"
    assert (rate(first), first.arguments.method.density, first.arguments.task.hold_out) == (0.4, 0.01, 10)
    assert first.arguments.training.num_train_epochs == 2 and len(grid.cells) == 12
    assert {cell.arguments.task.hold_out for cell in grid.cells} == {0}


def test_trials_are_for_columns_of_any_tasks(tmp_path: Path):
    columns = {name: {"task": name, "data_dir": "x"} for name in ("rte", "stsb", "squad")}
    trials = trials_of(small_grids.read(tmp_path, columns={**columns, "tweets": {"task": "tweets"}}, tune=TUNE))
    assert {cell.column for cell in trials.cells} == {*columns, "tweets"}
    assert {cell.arguments.task.hold_out for cell in trials.cells} == {10}


def test_the_seed_of_trials_is_the_first_of_the_grid_unless_it_is_given(tmp_path: Path):
    path = write(tmp_path, **{**GRID, "seeds": [4, 1], "tune": {**TUNE, "seed": None}})
    assert trials_of(grids.read(path)).seeds == (4,)
    assert trials_of(grids.read(path, seeds=[7, 8])).seeds == (7,)


def test_each_row_and_column_gets_its_best_value(tmp_path: Path):
    grid = read(tmp_path, **GRID)
    assert rates(grid) == dict.fromkeys(grid.places, {0.4}) and runner.missing(grid) == []  # nothing may run yet
    try_all(grid)
    grid = read(tmp_path, **GRID)
    assert rates(grid) == {place: {BEST.get(place, 0.08)} for place in grid.places}
    assert runner.missing(grid) == list(grid.cells) and runner.missing(trials_of(grid)) == []


def test_of_equal_scores_the_first_listed_is_chosen_and_a_trial_that_diverged_never(tmp_path: Path):
    for index, (scores, best) in enumerate([((0.5, 0.7, 0.7), 0.2), ((None, 0.1, 0.0), 0.2), ((None,) * 3, None)]):
        folder = tmp_path / str(index)
        folder.mkdir()
        changes: Any = {**GRID, "rows": {"dense": {"method": "dense"}}, "columns": {"rte": {"task": "cifar10"}}}
        for value, one in zip(TUNE["learning_rate"], scores, strict=True):
            (cell,) = trials_of(read(folder, **changes)).at(f"dense-learning_rate-{value}", "rte")
            finished(cell, one) if one is not None else diverged(cell)
        grid = read(folder, **changes)
        if best is None:
            (sentence,) = tuning.waiting(grid)
            assert sentence == "dense/rte: no learning_rate is chosen, all 3 trials diverged; list other values"
        else:
            assert rates(grid) == {("dense", "rte"): {best}} and not tuning.waiting(grid)
        assert runner.missing(trials_of(grid)) == []  # a trial that diverged is not tried again


def test_a_row_waits_while_one_of_its_trials_is_missing(tmp_path: Path):
    grid = read(tmp_path, **GRID)
    try_all(grid)
    (trials_of(grid).at("dense-learning_rate-0.2", "rte")[0].folder / results.FILE_NAME).unlink()
    grid = read(tmp_path, **GRID)
    (sentence,) = tuning.waiting(grid)
    assert sentence.startswith("dense/rte: no learning_rate is chosen, 1 of 3 trials have no result; the same command")
    assert {(c.row, c.column) for c in runner.missing(grid)} == {*grid.places} - {("dense", "rte")}
    text = tables.as_markdown(Sheet.of(grid))
    assert "Not chosen here, since trials are missing: dense/rte." in text
    assert re.search(r"\| dense +\| rte +\| 50.00 +\| - +\| 90.00 +\|", text)  # none is bold


def test_finished_runs_are_shown_without_their_trials(tmp_path: Path):
    grid = read(tmp_path, **GRID)
    try_all(grid)
    for cell in read(tmp_path, **GRID).at("dense", "rte"):
        finished(cell, 0.6)
    (tmp_path / "runs" / "tune").rename(tmp_path / "away")
    grid = read(tmp_path, **GRID)
    assert rates(grid)["dense", "rte"] == {0.08}
    header, lines = tables.table(Sheet.of(grid))
    line = next(line for line in lines if line[0] == "dense")
    assert dict(zip(header, line, strict=True))["learning_rate"] == "0.08 / -"
    assert len(grid.tuned.waiting) == 6 if grid.tuned else False


def test_a_run_with_another_value_than_the_trials_choose_does_not_pass_for_it(tmp_path: Path):
    grid = read(tmp_path, **GRID)
    finished(grid.at("dense", "rte")[0])  # with 0.4
    try_all(grid)
    with pytest.raises(ValueError, match=r"holds a run with `learning_rate` 0.4, not `learning_rate` 0.08"):
        runner.missing(read(tmp_path, **GRID))


def test_flags_replace_the_values_or_the_tuning(tmp_path: Path):
    path = write(tmp_path, **GRID)
    few = grids.read(path, tune_values=[0.05, 0.2], rows=["fish"], tasks=["rte"])
    assert [rate(cell) for cell in trials_of(few).cells] == [0.05, 0.2] * 2
    assert {cell.row[:9] for cell in trials_of(few).cells} == {"fish-0.01", "fish-0.1-"}
    plain = grids.read(path, flags=["--learning_rate", "0.1"])
    assert plain.tuned is None and {rate(cell) for cell in plain.cells} == {0.1}
    assert tables.table(Sheet.of(plain))[0][:3] == ["", "weights trained", "rte"]


def test_whole_numbers_stay_whole(tmp_path: Path):
    changes: Any = {"rows": {"fish": {"method": "fish"}}, "tune": {"num_samples": [32, 256], "hold_out": 5}}
    cells = trials_of(read(tmp_path, **changes)).cells
    assert [cell.arguments.method.num_samples for cell in cells if cell.column == "rte"] == [32, 256]


def test_tables_say_what_was_chosen_and_how(tmp_path: Path):
    try_all(read(tmp_path, **GRID))
    grid = read(tmp_path, **GRID)
    for cell in grid.cells:
        finished(cell, 0.6)
    header, lines = tables.table(Sheet.of(grid))
    assert header[:3] == ["", "weights trained", "learning_rate"]
    assert [(line[0], line[2]) for line in lines] == [
        ("fish-0.01", "0.2 / 0.08"), ("fish-0.1", "0.4 / 0.08"), ("dense", "0.08"),
    ]  # fmt: skip
    text = tables.as_markdown(Sheet.of(grid))
    assert "learning_rate chosen on held-out data: " in text and "0.4, 0.2, 0.08 whose trial scored best on 10" in text
    assert re.search(r"\| fish-0.01 +\| rte +\| 50.00 +\| \*\*90.00\*\* +\| 50.00 +\|", text)
    found = list(csv.DictReader(io.StringIO(tables.as_csv(Sheet.of(grid)))))
    assert [line["learning_rate"] for line in found if line["row"] == "fish-0.1"] == ["0.4", "0.08"]
    assert " & weights trained & learning\\_rate & " in tables.as_latex(Sheet.of(grid))


def test_a_value_that_is_the_flags_own_default_is_known_too(tmp_path: Path):
    changes: Any = {**GRID, "tune": {**TUNE, "learning_rate": [5e-5]}, "seeds": [0]}
    try_all(read(tmp_path, **changes))
    (cell,) = read(tmp_path, **changes).at("dense", "rte")
    result = finished(cell)
    assert "learning_rate" not in result.arguments and told.told(result, "learning_rate") == 5e-5


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ([0.1], "`tune` names a setting, its values and held-out examples: tune: {learning_rate: "),
        ({"hold_out": 5}, "`tune` takes one setting with a list of values, not 0"),
        ({"learning_rate": 0.1, "hold_out": 5}, "`tune` takes one setting with a list of values, not 0"),
        ({**TUNE, "weight_decay": [0, 1]}, "`tune` takes one setting with a list of values, not 2"),
        ({**TUNE, "holdout": 5}, "unknown key of `tune` 'holdout'; did you mean hold_out?"),
        ({**TUNE, "learning_rate": []}, "`tune` lists no value of learning_rate"),
        ({**TUNE, "learning_rate": [0.1, 0.2, 0.1]}, "`tune` names 0.1 twice"),
        ({**TUNE, "learning_rate": ["5e-5"]}, "a value of learning_rate in `tune` is a number (5.0e-5, not 5e-5)"),
        ({"learning_rate": [0.1]}, "`tune` needs hold_out, the number of training examples to choose by: "),
        ({**TUNE, "hold_out": 0}, "`tune` needs hold_out, the number of training examples to choose by, not 0"),
        ({**TUNE, "seed": 2**32}, "the seed in `tune` is a whole number from 0 to 2^32 - 1, not 4294967296"),
        ({**TUNE, "seed": [0]}, "the seed in `tune` is a whole number from 0 to 2^32 - 1, not [0]"),
        ({"learning_rte": [1], "hold_out": 5}, "unknown argument --learning_rte; did you mean --learning_rate?"),
    ],
)
def test_bad_tune(tmp_path: Path, tune: Any, message: str):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read(tmp_path, tune=tune)
    assert "\n" not in str(caught.value) and "small.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": {"a": {"learning_rate": 1}}}, "row a sets learning_rate, which `tune` decides: leave it out there"),
        ({"rows": {"a": {"sweep": {"learning_rate": [1]}}}}, "row a-1 sets learning_rate, which `tune` decides"),
        ({"columns": {"rte": {"task": "cifar10", "hold_out": 5}}}, "column rte sets hold_out, which `tune` decides"),
        ({"base": {"learning-rate": 1}}, "base sets learning_rate, which `tune` decides"),
        ({"stages": {"gates": {"method": "diff_gates"}}}, "not from a stage or another row"),
        ({"rows": {"a": {}, "b": {"start": "a", "method": "fixed_mask"}}}, "not from a stage or another row"),
    ],
)
def test_grids_that_decide_what_they_tune(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path, **{**GRID, **changes})


@pytest.mark.parametrize(
    ("tune", "options", "message"),
    [
        (None, {"tune_values": [0.1]}, "`tune_values` is for a grid that tunes a setting"),
        (TUNE, {"tune_values": [0.1, 0.1]}, "`tune` names 0.1 twice"),
        (TUNE, {"tune_values": [0.1], "flags": ["--learning-rate=1"]}, "leave `tune_values` out"),
        (TUNE, {"flags": ["--hold_out", "7"]}, "--hold_out is decided by `tune`"),
    ],
)
def test_bad_flags(tmp_path: Path, tune: Any, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        grids.read(write(tmp_path, tune=tune), **options)


def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit status of scripts/table.py with runs that take no time; those at 0.2 fail when `broken` is a word."""
    broken = "broken" in words

    def run_here(grid: Grid, jobs: int) -> list[Cell]:
        todo = runner.missing(grid)
        failed = [cell for cell in todo if broken and cell.row.startswith("dense") and rate(cell) == 0.2]
        for cell in todo:
            if cell not in failed:
                finished(cell, score(cell))
        return failed

    monkeypatch.setattr(runner, "run_here", run_here)
    where = ["--output_dir", str(tmp_path / "runs"), "--results_dir", str(tmp_path / "results")]
    arguments = [words[0], str(write(tmp_path, **GRID)), *where, *(word for word in words[1:] if word != "broken")]
    return table.main(arguments)


def test_the_script_tries_chooses_runs_and_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert script(tmp_path, monkeypatch, "run", "--dry_run") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 18 and out.count("--hold_out 10") == 18
    assert err.count("waiting: ") == 6 and not (tmp_path / "runs").exists()
    assert script(tmp_path, monkeypatch, "run", "broken") == 1
    out, err = capsys.readouterr()
    assert "failed: dense-learning_rate-0.2/rte/seed3" in err and "error: 2 of 30 runs failed" in err
    assert "waiting: dense/rte: no learning_rate is chosen, 1 of 3 trials have no result" in err
    assert len(list((tmp_path / "runs" / "resnet9").rglob("results.json"))) == 8
    assert script(tmp_path, monkeypatch, "run") == 0
    out, err = capsys.readouterr()
    assert err == "" and out.count("**90.00**") == 2 * 6  # before the runs, and in the table
    assert script(tmp_path, monkeypatch, "show") == 0
    assert capsys.readouterr().out.count("**90.00**") == 6
    assert script(tmp_path, monkeypatch, "run", "--dry_run") == 0 and capsys.readouterr().out.strip() == ""
