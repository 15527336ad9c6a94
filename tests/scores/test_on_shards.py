"""Masks chosen on models that `fully_shard` has cut (gloo on the CPU), against those of one process."""

import json
from pathlib import Path
from typing import Any

import pytest

from forked import run_ranks
from shared_runs import made_once

Reports = list[dict[str, Any]]
HELPER = Path(__file__).parents[1] / "helpers" / "on_shards.py"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reports, Reports]:
    """What each of two ranks says, and each of four."""
    def make(folder: Path) -> None:
        for count in (2, 4):
            (folder / str(count)).mkdir()
            run_ranks(HELPER, str(folder / str(count)), count=count)

    folder = made_once(tmp_path_factory, "on_shards", make)
    two, four = ([json.loads((folder / f"{n}/rank{i}.json").read_text()) for i in range(n)] for n in (2, 4))
    return two, four


def meshes(reports: tuple[Reports, Reports]) -> Reports:
    """Of two ranks, of four, and of two by two of which each pair holds the same."""
    two, four = reports
    return [*two, *four, *(report["replicas"] for report in four)]


def test_masks_are_those_of_one_process_with_ties_and_parts_without_entries(reports: tuple[Reports, Reports]):
    for report in meshes(reports):
        assert report["selections"]["tried"] > 20 and report["selections"]["wrong"] == 0


def test_what_is_wrong_on_one_rank_is_an_error_on_all(reports: tuple[Reports, Reports]):
    for report in meshes(reports):
        said = report["bad"]
        assert "the score of odd holds values that are not finite" in said["nan"]
        assert "scores of odd have the shape (99,), but this rank's part" in said["shape"]
        assert said["budget"] == "cannot choose 10,000 of 169 entries"
        assert "name different tensors" in said["names"]
        assert said["plain"].startswith("bert.pooler.dense.bias is not sharded: give a model that `fully_shard` has cut")
    first, second = (report["refusals"]["gone"] for report in reports[0])
    assert (first, second) == ("the file is gone", "rank 0 ended: the file is gone")


def test_scores_and_masks_are_those_of_one_process(reports: tuple[Reports, Reports]):
    """Ranks have different numbers of examples, and one has none."""
    for report in (*reports[0], *(report["replicas"] for report in reports[1])):
        for name, (difference, has_same_masks, is_as_before) in report["scored"].items():
            assert difference <= (0.0 if name in ("magnitude", "noise") else 1e-6), name
            assert has_same_masks, name
            assert is_as_before, name


def test_ranks_may_reach_different_tensors_and_compute_in_bfloat16(reports: tuple[Reports, Reports]):
    for report in meshes(reports):
        assert report["experts"]["float32"] <= 1e-6 and report["experts"]["bfloat16"] <= 1e-6


def test_a_fixed_mask_prepares_on_a_sharded_copy(reports: tuple[Reports, Reports]):
    for report in reports[0]:
        assert report["methods"] == {"fisher": True, "uniform": True, "some": True}


def test_what_cannot_be_done_on_shards_is_refused_with_what_can(reports: tuple[Reports, Reports]):
    for report in reports[0]:
        said = report["refusals"]
        for name, score in (("grasp", "grasp"), ("by grasp", "grasp"), ("own", "<lambda>")):
            assert said[name].startswith(f"the score `{score}` cannot be computed on shards")
            assert "choose on the whole model before it is sharded, or by one of magnitude, " in said[name]
        assert said["expected"].startswith("the `expected` Fisher cannot be computed on shards")
        for name in ("bfloat16", "reduced"):
            assert "in float32, not in torch.bfloat16" in said[name] and "MixedPrecisionPolicy(" in said[name]
        assert "is not sharded: give a model that `fully_shard`" in said["whole"]
        assert said["given"].startswith("this method chooses on the whole model")
    for report in reports[1]:
        assert "lies whole on each rank: choose on a model that is not" in report["replicas"]["one part"]
