"""What a finished run says when something about it cannot be counted."""

from pathlib import Path
from typing import Any

import pytest

from glue_sparse import SparseDiff
from glue_sparse.experiments import outcome
from glue_sparse.records import results
from rte_runs import go


class Strange(Exception):
    """Not a kind of error that this library knows."""


@pytest.mark.parametrize(
    "error", [AssertionError("no gradient function"), NotImplementedError(), Strange("x"), KeyError(3)]
)
def test_flops_that_cannot_be_counted_cost_no_run(
    tiny_bert: str, rte: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(outcome, "forward_flops", fail)
    go(tiny_bert, rte, tmp_path, "--method", "random", "--density", "0.1", "--num_train_epochs", "1")
    result = results.read(tmp_path / "results.json")
    assert result.flops == {} and 0 <= result.score <= 1
    assert SparseDiff.from_pretrained(tmp_path).num_active
    assert "FLOPs" not in outcome.summary(result, "run")
