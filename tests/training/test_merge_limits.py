"""Too many workers are refused before the model is copied for each of them."""

from pathlib import Path

import pytest

from glue_sparse.arguments.groups import MergeArguments
from glue_sparse.arguments.training import RunArguments
from glue_sparse.training.merging.limits import check


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
