"""A task of somebody else's, all of it in this file: in training, a grid and its table, found by entry points."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from datasets import Dataset

from glue_sparse import TaskRecord, register_task
from glue_sparse.arguments.flags import arg
from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.cli import table
from glue_sparse.experiments.run import run
from glue_sparse.experiments.told import parse
from glue_sparse.methods.registry import METHODS, register_method
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.registry import TASKS
from glue_sparse.tasks.text import TextData, build

HERE = Path(__file__).parent


@dataclass
class ToyTaskFlags:
    """How much data."""

    toy_rows: int = arg(16, "Rows of each split.", tasks=("toys",))


def load(name: str, task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
    """Whether a text has a cat."""
    texts = [f"the {'cat' if i % 2 else 'dog'} sleeps ." for i in range(task.own.toy_rows)]
    rows = Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(len(texts))]})
    splits = {"train": rows, "validation": rows}
    data = TextData(name, "Toys", splits, ("dog", "cat"), ("accuracy",), {"kind": "made"})
    return build(data, task, model, seed)


TASK = TaskRecord("toys", load, "whether a text has a cat", own=ToyTaskFlags)


@pytest.fixture
def registered() -> Iterator[None]:
    register_task(TASK)
    yield
    del TASKS["toys"]


@pytest.mark.usefixtures("registered")
def test_it_trains_with_its_flag(tiny_bert: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--task", "toys", "--model", tiny_bert, "--method", "bitfit", "--max_steps", "2", "--toy_rows", "8"]
    result = run(parse([*words, "--output_dir", str(tmp_path / "run"), "--disable_tqdm", "true"]))
    assert (result.task, result.title) == ("toys", "Toys") and result.source["rows"] == {"train": 8, "validation": 8}
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert "--toy_rows" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--toy_rows goes with --task toys, not with rte"):
        parse(["--task", "rte", "--toy_rows", "8"])
    with pytest.raises(ValueError, match="there is a task rte already"):
        register_task(TaskRecord("rte", load))


@pytest.mark.slow
def test_a_grid_runs_both_toys_and_its_table_shows_them(
    tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The run is a process of its own, which finds them by the entry points of an installed package."""
    package = tmp_path / "site" / "toys-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    points = "[glue_sparse.methods]\ntoy = test_toy_method:METHOD\n[glue_sparse.tasks]\ntoys = test_toy_task:TASK\n"
    (package / "entry_points.txt").write_text(points)
    methods = HERE.parent / "methods"
    paths = [tmp_path / "site", HERE, methods, HERE.parent / "helpers"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(methods)
    test_toy_method = import_module("test_toy_method")
    register_method(test_toy_method.METHOD)
    register_task(TASK)
    grid = {
        "base": {"model": tiny_bert, "max_steps": 2, "disable_tqdm": True, "eval_strategy": "no"},
        "rows": {"mine": {"method": "toy", "sweep": {"toy_count": [2]}}}, "columns": {"toys": {"task": "toys"}},
        "seeds": [0],
    }  # fmt: skip
    (tmp_path / "toy_grid.yaml").write_text(yaml.safe_dump(grid))
    where = ["--output_dir", str(tmp_path / "runs"), "--results_dir", str(tmp_path / "results")]
    try:
        assert table.main(["run", str(tmp_path / "toy_grid.yaml"), *where]) == 0
    finally:
        del METHODS["toy"], TASKS["toys"]
    assert "| mine-2 |" in (shown := capsys.readouterr().out) and "Toys accuracy" in shown
