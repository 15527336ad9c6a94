"""The front door to the tasks: names, contradictions and titles."""

from pathlib import Path
from typing import Any

import pytest
import torch

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.registry import load_task
from glue_sparse.tasks.text import describe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a task is missing"),
        ({"task": "SST-2"}, "unknown task 'SST-2'; did you mean sst2"),
        ({"task": "glue/rte"}, "did you mean rte"),
        ({"task": "zzzzzz"}, r"unknown task 'zzzzzz'; there are cola, mnli"),
        ({"task": "rte", "train_file": "x.csv"}, "--train_file goes with --task file or .* or sft, not with rte"),
        ({"task": "rte", "test_file": "x.csv"}, "--test_file goes with --task file"),
        ({"task": "tweets", "data_dir": "x"}, "--data_dir is not for --task tweets"),
        ({"task": "file", "data_dir": "x"}, "--data_dir is not for --task file"),
        ({"task": "file"}, "needs `train_file`"),
        ({"task": "file", "train_file": "x.csv"}, "needs `validation_file`"),
    ],
)
def test_contradictions(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as raised:
        load_task(TaskArguments(**options), ModelArguments(model="no-model-is-looked-for"), seed=0)
    assert "\n" not in str(raised.value)


def test_missing_model():
    with pytest.raises(ValueError, match="a model is missing"):
        load_task(TaskArguments(task="rte", data_dir="x"), ModelArguments(), seed=0)


@pytest.mark.parametrize(
    ("used", "available", "official", "title"),
    [
        ((2490, 277), (2490, 277), (2490, 277), "RTE"),
        ((500, 100), (2490, 277), (2490, 277), "RTE (500 of 2,490 train rows, 100 of 277 validation rows)"),
        ((400, 100), (400, 100), (2490, 277), "RTE (subset)"),
        ((400, 50), (400, 100), (2490, 277), "RTE (subset, 50 of 100 validation rows)"),
        ((2767, 277), (2767, 277), (2490, 277), "RTE (not official)"),
        ((400, 100), (400, 100), (), "RTE"),
    ],
)
def test_titles(used: tuple[int, ...], available: tuple[int, ...], official: tuple[int, ...], title: str):
    def by_split(rows: tuple[int, ...]) -> dict[str, int]:
        return dict(zip(["train", "validation"], rows, strict=False))

    assert describe("RTE", by_split(used), by_split(available), by_split(official)) == title


def load_films(folder: Path, model: str, seed: int = 0, **options: int) -> Task:
    path = folder / "films.csv"
    path.write_text("text,label\n" + "".join(f"{'cat ' * (i + 1)},{i % 2}\n" for i in range(30)))
    task = TaskArguments(task="file", train_file=str(path), validation_file=str(path), **options)  # pyright: ignore
    return load_task(task, ModelArguments(model=model), seed)


def test_training_rows_are_drawn_by_seed_and_named_in_the_title(tiny_bert: str, tmp_path: Path):
    options = {"max_train_samples": 5, "max_eval_samples": 2}
    first, again, other = (load_films(tmp_path, tiny_bert, seed, **options) for seed in (0, 0, 1))
    lengths = [[len(ids) for ids in task.train["input_ids"]] for task in (first, again, other)]
    assert lengths[0] == lengths[1] == sorted(lengths[0])
    assert lengths[0] != lengths[2]
    assert len(set(lengths[0])) == 5
    assert lengths[0] != [3, 4, 5, 6, 7]  # not simply the first rows
    assert [len(ids) for ids in first.evals["validation"]["input_ids"]] == [3, 4]
    assert first.title == "films (5 of 30 train rows, 2 of 30 validation rows)"
    assert first.source["rows"] == {"train": 5, "validation": 2}
    assert first.source["available_rows"] == {"train": 30, "validation": 30}
    with pytest.raises(ValueError, match="`max_train_samples` must be at least 1"):
        load_films(tmp_path, tiny_bert, max_train_samples=0)


def test_new_head_depends_on_the_seed_alone(tiny_bert: str, tmp_path: Path):
    heads = []
    for seed in (0, 0, 1):
        before = torch.get_rng_state()
        heads.append(load_films(tmp_path, tiny_bert, seed).model.state_dict()["classifier.weight"])
        assert torch.equal(before, torch.get_rng_state())
        torch.rand(1)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_test_rows_say_nothing_about_a_score():
    used = {"train": 10, "validation": 5, "test": 1}
    assert describe("RTE", used, {**used, "test": 3}, {**used, "test": 3}) == "RTE"
