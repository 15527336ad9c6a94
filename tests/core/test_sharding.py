"""Ranks that share out the frozen base train as one process does: 0.0 of difference in float32."""

import json
from pathlib import Path
from typing import Any

import pytest

from forked import run_ranks
from shared_runs import made_once

JOB = Path(__file__).parents[1] / "helpers" / "sharded_job.py"
SAME = [
    *(f"{model} {kind} {reshard}" for model in ("llama", "bert") for kind in ("sgd", "adamw")
      for reshard in (True, False)),
    "accumulated", "tied", "evaluated", "recomputed", "columns", "offloaded",
]  # fmt: skip


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    def make(folder: Path) -> None:
        run_ranks(JOB, str(folder), count=request.param)

    folder = made_once(tmp_path_factory, f"sharded{request.param}", make)
    first, *others = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    assert all(other == first for other in others) and len(others) == request.param - 1
    return first


@pytest.mark.parametrize("case", SAME)
def test_losses_values_and_weights_are_those_of_one_process(found: dict[str, Any], case: str):
    one = found[case]
    assert (one["losses"], one["values"], one["weights"]) == (0.0, 0.0, 0.0) and one["moved"] > 1e-3


@pytest.mark.slow
def test_each_of_two_groups_of_ranks_may_hold_the_whole_base(found: dict[str, Any]):
    if "replicated" in found:
        assert found["replicated"]["losses"] == found["replicated"]["values"] == found["replicated"]["weights"] == 0.0


def test_a_base_in_half_precision_has_a_float32_part_with_the_values_in_it(found: dict[str, Any]):
    first, last, dtype = found["half"]
    assert dtype == "torch.float32" and 0 < last < 10 and first != last


def test_what_changes_values_by_hand_is_in_the_next_forward_pass(found: dict[str, Any]):
    assert found["by hand"] is True
