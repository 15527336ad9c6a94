"""Damaged and odd data files: refused in one sentence with the place, or read as the words that they hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks import files
from glue_sparse.tasks.labels import class_of, number_of, word_of
from glue_sparse.tasks.squad.files import read as read_squad
from odd_files import rows_of, squad, table

OFTEN = pytest.mark.slow
SEEDS = [pytest.param(range(12), id="few"), pytest.param(range(12, 1200), id="many", marks=OFTEN)]


def refusal(read: Callable[[], Any], path: Path) -> tuple[Any, str]:
    """What was read, or the sentence that says why not."""
    try:
        return read(), ""
    except ValueError as error:
        sentence = str(error)
        assert len(sentence) <= 300 and "\n" not in sentence and str(path) in sentence, sentence[:1000]
        return None, sentence


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_tables(ending: str, seeds: range, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files, "build", lambda data, *rest: data)
    monkeypatch.chdir(tmp_path)
    path, accepted = Path(f"a.{ending}"), 0
    task = TaskArguments(task="file", train_file=str(path), validation_file=str(path))
    for seed in seeds:
        path.write_bytes(content := table(ending, seed))
        data, sentence = refusal(lambda: files.load("file", task, ModelArguments(), seed=0), path)
        whole = ("has no rows", "column", "is not UTF-8")
        assert data or " line " in sentence or any(word in sentence for word in whole), sentence
        if data:
            accepted += 1
            texts, labels = zip(*rows_of(ending, content), strict=True)
            assert list(data.splits["train"]["text"]) == [*texts]
            targets, words = list(data.splits["train"]["label"]), [word_of(label) for label in labels]
            if data.labels:
                assert [data.labels[target] for target in targets] == [class_of(word) for word in words]
            else:
                assert targets == [float(number_of(word) or 0) for word in words]
    assert accepted


@pytest.mark.parametrize("seeds", SEEDS)
def test_squad(seeds: range, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, accepted = Path("a.json"), 0
    for seed in seeds:
        path.write_bytes(squad(seed))
        rows, _ = refusal(lambda: read_squad(path), path)
        for row in rows or ():
            accepted += 1
            [text], [start] = row["answers"]["text"], row["answers"]["answer_start"]
            assert row["question"].strip() and row["context"][start : start + len(text)] == text
    assert accepted
