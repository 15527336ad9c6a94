"""Training rows held out to be scored: which ones, by every kind of task, and never trained on."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks import registry
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.corpus import open_split
from glue_sparse.tasks.held_out import choose
from glue_sparse.tasks.registry import TaskRecord
from glue_sparse.tasks.text import TextData, build

WORDS = ("cat", "dog", "bird", "fish", "film", "book", "story", "child", "man", "woman", "plot", "river")
TEXTS = [f"the {one} {verb} a {other} ." for one in WORDS for other in WORDS for verb in ("sees", "likes")][:60]


@pytest.mark.parametrize(
    ("labels", "count", "per_label"),
    [([0, 1] * 10, 5, {0: 3, 1: 2}), ([0] * 4 + [1] * 16, 10, {0: 2, 1: 8}), ([1, 0, 2] * 4, 0, {}), ([7], 0, {})],
)
def test_labels_are_held_out_by_their_share(labels: Sequence[int], count: int, per_label: dict[int, int]):
    keys = [*map(str, range(len(labels)))]
    rows = choose(keys, count, labels)
    assert rows == sorted(set(rows)) and Counter(labels[row] for row in rows) == per_label
    more = choose(keys, min(count + 2, len(labels) - 1), labels)
    assert set(rows) <= set(more)  # a larger one holds the smaller one


def test_rows_go_by_their_keys_wherever_they_stand():
    held = {TEXTS[row] for row in choose(TEXTS, 20)}
    assert {TEXTS[::-1][row] for row in choose(TEXTS[::-1], 20)} == held and len(held) == 20
    assert held != set(TEXTS[:20])


@pytest.mark.parametrize("count", [5, 20, 59])
def test_rows_of_one_key_are_never_divided(count: int):
    keys = [f"paragraph {row // (1 + row % 4)}" for row in range(60)]
    rows = set(choose(keys, count))
    assert rows and {keys[row] for row in rows}.isdisjoint(keys[row] for row in range(60) if row not in rows)
    assert count - 4 <= len(rows) <= count


@pytest.mark.parametrize(
    ("keys", "count", "message"),
    [
        (["a", "b"], 2, "`hold_out` 2 leaves none of the 2 training rows to train on"),
        (["a"] * 3 + ["b"] * 4, 2, "`hold_out` 2 is fewer than the 3 training rows that belong together: hold "),
    ],
)
def test_what_leaves_nothing_is_refused(keys: list[str], count: int, message: str):
    with pytest.raises(ValueError, match=f"^{message}"):
        choose(keys, count)


def glue(folder: Path) -> dict[str, Any]:
    return {"task": "sst2", "data_dir": str(folder)}


def numbers(folder: Path) -> dict[str, Any]:
    return {"task": "file", "train_file": str(folder / "numbers.csv"), "validation_file": str(folder / "dev.csv")}


def questions(folder: Path) -> dict[str, Any]:
    return {"task": "squad", "data_dir": str(folder), "max_length": 64, "doc_stride": 16}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Training texts in each format, and validation data with a text that no task may look at."""
    for name, texts in (("train", TEXTS), ("dev", ["the validation sleeps ."] * 2)):
        rows = [f"{text}\t{row % 3 // 2}" for row, text in enumerate(texts)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
        csv = [f"{text},{row / 8}" for row, text in enumerate(texts)]
        file = "numbers.csv" if name == "train" else "dev.csv"
        (tmp_path / file).write_text("\n".join(["text,label", *csv]) + "\n")
        answers = [{"text": "the", "answer_start": 0}]
        paragraphs = [
            {"context": text, "qas": [{"id": f"{row} {verb}", "question": f"who {verb} ?", "answers": answers}
                                      for verb in ("sees", "likes")]}
            for row, text in enumerate(texts)
        ]  # fmt: skip
        (tmp_path / f"{name}-v1.1.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return tmp_path


def load(model: str, seed: int = 0, **settings: Any) -> Task:
    return registry.load_task(TaskArguments(**settings), ModelArguments(model=model), seed)


def inputs(rows: Any) -> set[tuple[int, ...]]:
    return {tuple(rows[row]["input_ids"]) for row in range(len(rows))}


@pytest.mark.parametrize("told", [glue, numbers, questions])
def test_what_is_scored_is_never_trained_on(told: Callable[[Path], Any], tiny_bert: str, folder: Path):
    settings = told(folder)
    whole, task, other = load(tiny_bert, **settings), *(load(tiny_bert, s, **settings, hold_out=12) for s in (0, 1))
    few = load(tiny_bert, **settings, hold_out=12, max_train_samples=20, max_eval_samples=4)
    assert list(task.evals) == ["validation"] and len(task.evals["validation"]) == 12 == task.source["held_out"]
    held, trained = inputs(task.evals["validation"]), inputs(task.train)
    assert held.isdisjoint(trained) and held | trained == inputs(whole.train)
    assert inputs(other.evals["validation"]) == held and inputs(few.train) < trained
    assert inputs(few.evals["validation"]) <= held and len(few.evals["validation"]) == 4
    assert "scored on 12 train rows held out" in task.title and task.main_metric == whole.main_metric
    assert f"20 of {len(task.train)} train rows" in few.title and "held_out" not in whole.source
    assert "subset" not in task.title and not {"train", "validation"} & task.source["official_rows"].keys()


def test_classes_keep_their_share_and_paragraphs_stay_whole(tiny_bert: str, folder: Path):
    task = load(tiny_bert, **glue(folder), hold_out=12)
    assert Counter(task.evals["validation"]["label"]) == {0: 8, 1: 4}  # pyright: ignore
    held = load(tiny_bert, **questions(folder), hold_out=13)
    assert len(held.evals["validation"]) == 12 == held.source["held_out"]  # 13 would divide a paragraph


def test_test_splits_stay_and_all_validation_splits_go(tiny_bert: str):
    rows = Dataset.from_dict({"text": TEXTS, "label": [row % 2 for row in range(60)]})
    tests = Dataset.from_dict({"text": ["the end ."], "index": [0]})
    splits = {"train": rows, "validation_a": rows, "validation_b": rows, "test": tests}
    data = TextData("toys", "Toys", splits, ("no", "yes"), ("accuracy",), {}, prediction_files={"test": "x"})
    task = build(data, TaskArguments(hold_out=5), ModelArguments(model=tiny_bert), 0)
    assert list(task.evals) == ["validation"] and list(task.tests) == ["test"]


@pytest.mark.parametrize("streaming", [False, True])
def test_text_is_held_out_by_documents(streaming: bool, tmp_path: Path):
    files = {"train": TEXTS, "valid": ["the validation sleeps ."] * 5}
    for name, texts in files.items():
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"{text}\n{text}" for text in texts))
    split = open_split(TaskArguments(task="masked_lm", data_dir=str(tmp_path), hold_out=6, streaming=streaming))
    held, rest = ([document[0] for document in part] for part in (split.validation, split.train))
    assert sorted(held + rest) == sorted(TEXTS) and len(held) == 6 and split.held_out == 6
    assert (held == TEXTS[:6]) == streaming and split.note == "scored on 6 train documents held out"
    with pytest.raises(ValueError, match="`hold_out` 60 leaves none of the"):
        open_split(TaskArguments(task="masked_lm", data_dir=str(tmp_path), hold_out=60, streaming=streaming))


def test_without_validation_text_what_validates_is_left_alone(tmp_path: Path):
    (tmp_path / "all.txt").write_text("\n\n".join(f"{text}\n{text}" for text in TEXTS))
    plain, held = (open_split(TaskArguments(task="masked_lm", data_dir=str(tmp_path), hold_out=n)) for n in (0, 6))
    parts = [[document[0] for document in part] for part in (held.train, held.validation, plain.validation)]
    assert sorted(sum(parts, [])) == sorted(TEXTS)


def test_predictions_of_questions_do_not_go_with_it(tiny_bert: str, folder: Path):
    task = TaskArguments(**questions(folder), hold_out=3)
    with pytest.raises(ValueError, match="predictions are of the validation questions, which `hold_out` leaves alone"):
        registry.load_task(task, ModelArguments(model=tiny_bert), 0, do_predict=True)


def test_a_task_that_holds_nothing_out_says_so(tiny_bert: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    def deaf(name: str, task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
        return registry.load_task(replace(task, task="sst2", hold_out=0), model, seed)

    monkeypatch.setitem(registry.TASKS, "deaf", TaskRecord("deaf", deaf, takes=("data_dir",)))
    with pytest.raises(ValueError, match="`task` deaf holds no training data out to score: leave `hold_out` out"):
        load(tiny_bert, task="deaf", data_dir=str(folder), hold_out=3)
