"""load_task for programs: keywords in the place of flags, and one sentence for what cannot be."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_toy_task import TASK

from glue_sparse import load_task
from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks import registry


def csv(folder: Path, rows: int = 12) -> Path:
    path = folder / "my.csv"
    path.write_text("text,label\n" + "".join(f"the {'cat' if i % 2 else 'dog'} {i} .,{i % 2}\n" for i in range(rows)))
    return path


def test_keywords_are_the_flags_of_task_and_model(tiny_bert: str, tmp_path: Path):
    path = csv(tmp_path)
    told = TaskArguments("file", train_file=str(path), validation_file=str(path), max_train_samples=5)
    wanted = registry.load_task(told, ModelArguments(tiny_bert, dtype="bfloat16"), 3)
    found = load_task("file", model=Path(tiny_bert), seed=3, train_file=path, validation_file=path,
                      max_train_samples=5, dtype="bfloat16")  # fmt: skip
    assert found.train[:] == wanted.train[:] and len(found.train) == 5
    assert found.head == wanted.head and found.evals.keys() == wanted.evals.keys()
    for one, other in zip(found.model.parameters(), wanted.model.parameters(), strict=True):
        assert one.dtype == torch.bfloat16 and torch.equal(one, other)


def test_a_diff_names_the_model_as_it_was_asked_for(tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("glue_sparse.models.sources.resolve", lambda name: tiny_bert)
    for place in ("loading", "tokenizers"):
        monkeypatch.setattr(f"glue_sparse.models.{place}.resolve", lambda name: tiny_bert, raising=False)
    path = csv(tmp_path)
    found: Any = load_task("file", model="minilm", train_file=path, validation_file=path).model
    assert found.config._name_or_path == "minilm"


def test_flags_of_a_task_of_somebody_else(tiny_bert: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(registry.TASKS, "toys", TASK)
    assert len(load_task("toys", model=tiny_bert, toy_rows=6).train) == 6
    with pytest.raises(ValueError, match="unknown flag 'toy_row'; did you mean toy_rows"):
        load_task("toys", model=tiny_bert, toy_row=6)


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("tweet", {}, "unknown task 'tweet'; did you mean tweets"),
        ("tweets", {"max_train_sample": 5}, "unknown flag 'max_train_sample'; did you mean max_train_samples"),
        ("tweets", {"learning_rate": 5}, "unknown flag 'learning_rate'; see `glue-sparse train --help`"),
        ("tweets", {"max_train_samples": 0}, "`max_train_samples` must be at least 1, got 0"),
        ("tweets", {"max_train_samples": "5"}, "`max_train_samples` of what `load_task` is told must be"),
        ("tweets", {"dtype": "float16"}, "`dtype` of what `load_task` is told must be"),
        ("tweets", {"hold_out": -5}, "`hold_out` must be at least 0, got -5"),
        ("tweets", {"max_predict_samples": 5}, "`max_predict_samples` has no effect without `do_predict`"),
        ("tweets", {"seed": -1}, "`seed` must be from 0 to|`seed` must be in"),
        ("tweets", {"do_predict": True}, "no test split to predict|is not installed"),
    ],
)
def test_what_cannot_be_is_one_sentence(task: str, flags: dict[str, Any], message: str, tiny_bert: str):
    with pytest.raises(ValueError, match=message) as caught:
        load_task(task, model=tiny_bert, **flags)
    assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value)
