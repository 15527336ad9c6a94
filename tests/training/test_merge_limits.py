"""Too many workers, and other bad plans, are refused before the model is copied for each worker."""

from pathlib import Path
from typing import Any

import pytest

from glue_sparse.arguments.groups import MergeArguments
from glue_sparse.arguments.training import RunArguments
from glue_sparse.training.merging.limits import check
from merging import build


@pytest.mark.parametrize(
    ("plan", "density", "message"),
    [
        ({}, 0.05, "41 workers with entries of their own, each with a `density` of 0.05, need more than all"),
        ({"worker_masks": "shared", "worker_data": "sharded"}, 0.05, "40 training examples are too few for 41 workers"),
        ({"worker_masks": "shared"}, 0.05, ""),
        ({}, 0.02, ""),
    ],
)
def test_too_many_workers(plan: dict[str, str], density: float, message: str, tmp_path: Path):
    args, asked = RunArguments(output_dir=str(tmp_path), use_cpu=True), MergeArguments(merge_every=1, **plan)  # pyright: ignore
    if not message:
        check(args, asked, 41, 40, density)
        return
    with pytest.raises(ValueError, match=message):
        check(args, asked, 41, 40, density)


def test_many_workers_that_sum_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    build(tmp_path, merge_every=4, num_workers=4, merge_rule="mean")
    assert "diverged" not in caplog.text
    build(tmp_path, merge_every=4, num_workers=4)
    assert "runs with 4 and 8 workers diverged" in caplog.text


@pytest.mark.parametrize(
    ("plan", "options", "message"),
    [
        ({"merge_every": 0}, {}, "`merge_every` must be at least 1"),
        ({"merge_every": 4, "num_workers": None}, {}, "--simulate needs --num_workers"),
        ({"merge_every": None}, {}, "need --merge_every"),
        ({"merge_every": 4, "simulate": False}, {}, "start it with torchrun --nproc_per_node 2"),
        ({"merge_every": 4}, {"bf16_full_eval": True}, "`bf16_full_eval` does not work"),
        ({"merge_every": 4}, {"label_smoothing_factor": 0.1}, "`label_smoothing_factor` does not work"),
        ({"merge_every": 4, "num_workers": 50}, {}, "50 workers with entries of their own"),
    ],
)
def test_bad_plans_are_one_sentence(tmp_path: Path, plan: dict[str, Any], options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, options=options, **plan).run()
