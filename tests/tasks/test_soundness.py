"""Data that can teach or test nothing: refused, or told with the score, for every task with labels."""

from pathlib import Path
from typing import Any

import pytest

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks.registry import load_task
from glue_sparse.tasks.soundness import check, doubts

AB = ("a", "b")


@pytest.mark.parametrize(
    ("splits", "classes", "message"),
    [
        ({"train": [1, 1]}, AB, "^X: every row of train has the label b: there is nothing to learn$"),
        ({"train": [0.5, 0.5]}, (), "every row of train has the label 0.5"),
        ({"train": []}, AB, "X: train has no rows"),
        ({"train": [0, 1], "validation": []}, AB, "X: validation has no rows"),
        ({"train": [0, -1]}, AB, "X: row 1 of train has the label -1, which is not a class from 0 to 1"),
        ({"train": [0, 1], "validation": [2]}, AB, "row 0 of validation has the label 2"),
        ({"train": [0.5, float("nan")]}, (), "row 1 of train has the label nan, which is not a finite number"),
        ({"train": [0.5, None]}, (), "row 1 of train has the label None"),
    ],
)
def test_refused(splits: dict[str, list[Any]], classes: tuple[str, ...], message: str):
    with pytest.raises(ValueError, match=message):
        check(splits, classes, "X")


@pytest.mark.parametrize(
    ("labels", "inputs", "classes", "expected"),
    [
        (([0, 1], [1, 0]), ("xy", "zx"), AB, []),
        (([0, 1], [1, 1]), ("xy", "zw"), AB, ["every row of dev that is used has the label b: f1 cannot"]),
        (([0.5, 1], [2, 2]), ("xy", "zw"), (), ["every row of dev that is used has the label 2: f1 "]),
        (([0, 0], [0, 0]), ("xy", "zw"), AB, ["every row of train that is used has the label a", "every row of dev"]),
        (([0, 0], [0, 1]), ("xy", "zw"), AB, ["every row of train", "dev asks for the label b, which no row of train"]),
        (([0, 1], [1, 0]), ("xy", "yx"), AB, ["2 of 2 rows of dev are rows of train too: they tell little of others"]),
        (([0, 1], [1, 0, 0]), ("xy", "yxz"), AB, ["2 of 3 rows of dev are rows of train too"]),
    ],
)  # fmt: skip
def test_told(labels: Any, inputs: Any, classes: tuple[str, ...], expected: list[str], caplog):
    names = ("train", "dev")
    found = doubts(dict(zip(names, labels, strict=True)), dict(zip(names, inputs, strict=True)), classes, ("f1",), "X")
    sentences = found.get("doubts", [])
    assert len(sentences) == len(expected) and all(map(str.startswith, sentences, expected))
    assert [record.message for record in caplog.records] == [f"X: {one}" for one in sentences]


def test_a_run_keeps_what_a_score_must_not_be_told_without(rte: Path, tiny_bert: str, caplog):
    def load() -> dict[str, Any]:
        return load_task(TaskArguments(task="rte", data_dir=str(rte)), ModelArguments(model=tiny_bert), seed=0).source

    path = rte / "RTE" / "dev.tsv"
    path.write_text(path.read_text().replace("\tentailment", "\tnot_entailment").replace("the cat", "a bird"))
    only = "every row of validation that is used has the label not_entailment: accuracy cannot tell good from bad"
    assert load()["doubts"] == [only] and f"RTE: {only}" in caplog.text
    path = rte / "RTE" / "train.tsv"
    path.write_text(path.read_text().replace("\tentailment", "\tnot_entailment"))
    with pytest.raises(ValueError, match="RTE: every row of train has the label not_entailment: there is nothing to"):
        load()
