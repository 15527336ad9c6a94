"""What a card says of a run, also of one that was finished before there were cards."""

from dataclasses import replace
from pathlib import Path

import pytest

from glue_sparse.cli.work.hub import push
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import FILE_NAME
from glue_sparse.experiments.cards import beside, measured
from glue_sparse.records import results
from networks import bert
from pretraining_results import run

RESULT = run("bert_tiny", "rigl", 0.1, 2.0, 1.0)


def test_data_of_the_hub_are_named_as_such_and_paths_are_known():
    local = replace(RESULT, source={"kind": "data_dir", "name": "glue"}, arguments={"data_dir": "/a b/glue", "seed": 1})
    assert measured(local).dataset is None and measured(local).paths == ["/a b/glue"]
    for name in ("org/data", "org/data:20231101.en (train)", "org/data (train)"):
        told = measured(replace(RESULT, source={"kind": "hub", "name": name}))
        assert (told.dataset, told.data) == ("org/data", name)


def test_a_run_without_a_card_is_pushed_with_its_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = SparseDiff.between({}, bert()).save_file(tmp_path)
    results.write(replace(RESULT, title="A title of its own"), tmp_path)
    pushed: list[str] = []
    monkeypatch.setattr(SparseDiff, "push_to_hub", lambda self, repo_id, *, readme, **_: pushed.append(readme))
    for source in (tmp_path, path):
        push(str(source), "me/x", None, None, "message")
    assert len(pushed) == 2 and all("A title of its own" in text and '"me/x"' in text for text in pushed)


def test_a_damaged_result_leaves_the_card_without_metrics(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert beside(tmp_path) is None and beside("me/x") is None and not caplog.text
    (tmp_path / results.FILE_NAME).write_text("{}")
    assert beside(tmp_path / FILE_NAME) is None and "the model card is without metrics" in caplog.text
