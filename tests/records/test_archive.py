"""Archives of finished runs: nothing that tables need is lost, nothing of the machine is kept, and they stay small."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from glue_sparse.experiments.cells import Grid
from glue_sparse.records import archive, results
from glue_sparse.records.results import Result
from glue_sparse.records.thinned import packed, spread
from glue_sparse.reports import tables
from glue_sparse.reports.sheet import Sheet
from small_grids import SMALL, finished, read

HISTORY = [
    *({"step": step, "epoch": step / 100, "loss": 1 / step, "grad_norm": 0.1} for step in range(1, 201)),
    *({"step": step, "eval_validation_accuracy": step / 1000, "eval_validation_runtime": 3.0} for step in range(200)),
    {"step": 200, "explored": 0.25}, {"step": 200, "loss": None},
]  # fmt: skip


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    grid = read(tmp_path)
    for number, cell in enumerate(grid.cells):
        finished(cell, 0.3 + number / 7, cost={"trainable": 5 + len(cell.row)}, history=HISTORY,
                 source={"name": cell.column, "rows": {"train": 10, "validation": 3}}, versions={"torch": "2"},
                 command=f"/a/b/cli/train.py --data_dir '/of mine/x y' --seed {cell.seed} --a=/b/c 1/2")  # fmt: skip
    return grid


def compact(result: Result) -> Result:
    """What is to be left of a result, its command apart."""
    return replace(result, history=spread(packed(result.history)), arguments=results.settings(result.arguments),
                   command="")  # fmt: skip


def test_an_archive_holds_all_that_its_runs_say(grid: Grid, tmp_path: Path):
    runs = archive.read([tmp_path / "runs"])
    assert [one.name for one in runs] == sorted(f"runs/minilm/{cell.name}" for cell in grid.cells)
    path = archive.write(runs, tmp_path / "docs" / "runs.json")
    again = archive.read([path])
    assert [one.key for one in again] == [one.key for one in runs]
    for one, whole in zip(again, runs, strict=True):
        assert replace(one.result, command="") == compact(whole.result)
        assert one.result.command == f"glue-sparse train --data_dir 'path/to/x y' --seed {one.seed} --a=path/to/c 1/2"
    assert archive.write(again, tmp_path / "again.json").read_text() == path.read_text()
    assert archive.read([tmp_path / "docs"]) == again


def test_what_is_shared_stands_once(grid: Grid, tmp_path: Path):
    text = archive.write(archive.read([tmp_path / "runs"]), tmp_path / "runs.json").read_text()
    assert text.count('"torch"') == text.count('"eval_validation_accuracy"') == text.count('"num_entries"') == 1
    assert text.count('"trainable"') == len(SMALL["rows"]) and text.count('"rows":{"train"') <= 2
    assert len(text.splitlines()) < 10 + 2 * len(grid.cells)


def test_an_unpacked_archive_makes_the_same_table(grid: Grid, tmp_path: Path):
    before = [path.read_text() for path in tables.write(Sheet.of(grid), tmp_path / "before")]
    archive.write(archive.read([tmp_path / "runs"]), tmp_path / "runs.json")
    (tmp_path / "runs").rename(tmp_path / "kept")
    assert not Sheet.of(grid).results
    archive.unpack(archive.read([tmp_path / "runs.json"]), tmp_path)
    assert [path.read_text() for path in tables.write(Sheet.of(grid), tmp_path / "after")] == before
    other = read(tmp_path, base={"model": "minilm", "num_train_epochs": 9})
    with pytest.raises(ValueError, match="num_train_epochs"):
        Sheet.of(other)


def test_a_history_keeps_evaluations_and_some_of_each_other_kind():
    kept = spread(packed(HISTORY))
    losses = [log["step"] for log in kept if log.get("loss") is not None]
    assert len(losses) == 40 and losses[0] == 1 and losses[-1] == 200 and losses == sorted(losses)
    assert [log for log in kept if "eval_validation_accuracy" in log] == [
        {"step": step, "eval_validation_accuracy": step / 1000} for step in range(200)
    ]
    assert kept[-2:] == HISTORY[-2:] and not any("grad_norm" in log for log in kept)


def test_a_run_counts_before_an_archive_and_a_later_archive_before_an_earlier(grid: Grid, tmp_path: Path):
    first, second = grid.cells[:2]
    runs = archive.read([tmp_path / "runs"])
    one, two = (archive.write(runs, tmp_path / name) for name in ("one.json", "two.json"))
    two.write_text(two.read_text().replace('"torch":"2"', '"torch":"3"'))
    finished(first, 0.9)
    (second.folder / results.FILE_NAME).unlink()
    found = {one.name.removeprefix("runs/minilm/"): one.result for one in archive.read([tmp_path / "runs", one, two])}
    assert found[first.name].score == 0.9 and found[second.name].versions == {"torch": "3"}


def test_trials_are_a_grid_of_their_own_and_a_run_alone_is_none(grid: Grid, tmp_path: Path):
    result = archive.read([tmp_path / "runs"])[0].result
    results.write(result, tmp_path / "g" / "tune" / "m" / "r" / "c" / "seed3")
    results.write(result, tmp_path / "alone" / "mine")
    (trial,), (alone,) = archive.read([tmp_path / "g"]), archive.read([tmp_path / "alone"])
    assert trial.key == ("g/tune", "m", "r", "c", 3) and alone.key == ("", "minilm", "mine", result.task, result.seed)
    assert archive.read([archive.write([trial], tmp_path / "g.json")])[0].key == trial.key
    with pytest.raises(ValueError, match="mine is no run of a grid"):
        archive.write([alone], tmp_path / "no.json")


@pytest.mark.parametrize("change", [
    lambda facts: facts.pop("runs"), lambda facts: facts.pop("version"), lambda facts: facts.update(shared=[]),
    lambda facts: facts["runs"].update({"a/b": {}}), lambda facts: facts["shared"].pop("method"),
    lambda facts: facts["shared"]["history"].update(names=[]), lambda facts: facts["rows"].update(x=1),
    lambda facts: facts["shared"]["history"].update(logs=[[]]),
], ids=range(8))  # fmt: skip
def test_what_is_no_archive_is_refused_in_one_sentence(grid: Grid, tmp_path: Path, change):
    entries = archive.read([tmp_path / "runs"])
    path = archive.write([replace(one, result=replace(one.result, method="m")) for one in entries], tmp_path / "a.json")
    change(facts := json.loads(path.read_text()))
    path.write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="a.json is no archive of results: ") as error:
        archive.read([path])
    assert len(str(error.value)) < 300 + len(str(path))


def test_a_place_without_results_is_refused(tmp_path: Path):
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ValueError, match="holds no results"):
            archive.read([place])
