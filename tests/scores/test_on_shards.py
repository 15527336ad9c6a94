"""Masks chosen on models that `fully_shard` has cut (gloo on the CPU), against those of one process."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from forked import run_ranks
from shared_runs import made_once

Reports = list[dict[str, Any]]
HELPER = Path(__file__).parents[1] / "helpers" / "on_shards.py"
PARTS = ["selections", "bad_selections", "experts", "methods", "refusals"]
SCORED = ["bert", "unlabelled", "tied decoder", "noise"]
RARELY = [
    "llama", "absolute", "frozen", "recomputed", "tied encoder", "gradient", "saliency", "skeletonization", "magnitude",
]  # fmt: skip


def said_by(count: int, name: str, words: list[str], factory: pytest.TempPathFactory) -> Reports:
    """What each of so many ranks says of some parts and scores."""
    folder = made_once(factory, name, lambda folder: run_ranks(HELPER, str(folder), *words, count=count))
    return [json.loads((folder / f"rank{i}.json").read_text()) for i in range(count)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """What each of two ranks says."""
    return said_by(2, "on_shards", [*PARTS, *SCORED], tmp_path_factory)


def check_selections(said: dict[str, int]) -> None:
    assert said["tried"] == 18 and said["wrong"] == 0


def check_scores(said: dict[str, tuple[float, bool, bool]], names: Collection[str]) -> None:
    assert said.keys() == {*names}
    for name, (difference, has_same_masks, is_as_before) in said.items():
        assert difference <= (0.0 if name in ("magnitude", "noise") else 1e-6), name
        assert has_same_masks, name
        assert is_as_before, name


def test_masks_are_those_of_one_process_with_ties_and_parts_without_entries(two: Reports):
    for report in two:
        check_selections(report["selections"])


def test_what_is_wrong_on_one_rank_is_an_error_on_all(two: Reports):
    for said in (report["bad_selections"] for report in two):
        assert "the score of odd holds values that are not finite" in said["nan"]
        assert "scores of odd have the shape (99,), but this rank's part" in said["shape"]
        assert said["budget"] == "cannot choose 10,000 of 169 entries"
        assert "name different tensors" in said["names"]
        assert said["plain"].startswith("bert.pooler.dense.bias is not sharded: give a model that `fully_shard` has")
    first, second = (report["refusals"]["gone"] for report in two)
    assert (first, second) == ("the file is gone", "rank 0 ended: the file is gone")


def test_scores_and_masks_are_those_of_one_process(two: Reports):
    """Ranks have different numbers of examples."""
    for report in two:
        check_scores(report["scored"], SCORED)


@pytest.mark.slow
def test_other_scores_of_other_models(tmp_path_factory: pytest.TempPathFactory):
    for report in said_by(2, "other_scores_on_shards", RARELY, tmp_path_factory):
        check_scores(report["scored"], RARELY)


def test_ranks_may_reach_different_tensors_and_compute_in_bfloat16(two: Reports):
    for report in two:
        assert report["experts"]["float32"] <= 1e-6 and report["experts"]["bfloat16"] <= 1e-6


def test_a_fixed_mask_prepares_on_a_sharded_copy(two: Reports):
    for report in two:
        assert report["methods"] == {"fisher": True, "uniform": True, "some": True}


def test_what_cannot_be_done_on_shards_is_refused_with_what_can(two: Reports):
    for said in (report["refusals"] for report in two):
        for name, score in (("grasp", "grasp"), ("by grasp", "grasp"), ("own", "<lambda>")):
            assert said[name].startswith(f"the score `{score}` cannot be computed on shards")
            assert "choose on the whole model before it is sharded, or by one of magnitude, " in said[name]
        assert said["expected"].startswith("the `expected` Fisher cannot be computed on shards")
        for name in ("bfloat16", "reduced"):
            assert "in float32, not in torch.bfloat16" in said[name] and "MixedPrecisionPolicy(" in said[name]
        assert "is not sharded: give a model that `fully_shard`" in said["whole"]
        assert said["given"].startswith("this method chooses on the whole model")


@pytest.mark.slow
def test_four_ranks_and_two_by_two_of_which_each_pair_holds_the_same(tmp_path_factory: pytest.TempPathFactory):
    """Each entry counts once; of two by two, one rank has no example."""
    for report in said_by(4, "four_on_shards", ["selections", "replicas"], tmp_path_factory):
        check_selections(report["selections"])
        check_selections(report["replicas"]["selections"])
        check_scores(report["replicas"]["scored"], ["llama", "gradient", "noise"])
        assert "lies whole on each rank: choose on a model that is not" in report["replicas"]["one part"]
