"""Ranks that share out the frozen base train as one process does: 0.0 of difference in float32."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decoders import causal
from forked import run_ranks
from glue_sparse.core import sharding
from rare import rarely
from shared_runs import made_once

JOB = Path(__file__).parents[1] / "helpers" / "sharded_job.py"
SAME = [
    *(f"{model} {kind} {reshard}" for model in ("llama", "bert") for kind in ("sgd", "adamw")
      for reshard in (True, False)),
    "accumulated", "tied", "evaluated", "recomputed", "columns", "offloaded",
]  # fmt: skip
OTHERS = ["half", "by hand", "page"]
USUAL = ["llama sgd True", "bert adamw False", "tied", "recomputed", "by hand", "page"]
RANKS = [2, pytest.param(4, marks=pytest.mark.slow)]

Found = Callable[[str, int], Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What so many ranks say of a case; two of them run the usual cases together, and the rest together."""

    def find(case: str, count: int) -> Any:
        group = [name for name in (*SAME, *OTHERS) if (name in USUAL) == (case in USUAL)]
        if count == 4:
            group = [*SAME, *OTHERS, "replicated"]
        name = f"sharded{count}of{len(group)}"
        folder = made_once(tmp_path_factory, name, lambda folder: run_ranks(JOB, str(folder), *group, count=count))
        first, *others = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
        assert all(other == first for other in others) and len(others) == count - 1
        return first[case]

    return find


def check_same(one: dict[str, float]) -> None:
    assert (one["losses"], one["values"], one["weights"]) == (0.0, 0.0, 0.0) and one["moved"] > 1e-3


@pytest.mark.parametrize("count", RANKS)
@pytest.mark.parametrize("case", rarely(SAME, USUAL))
def test_losses_values_and_weights_are_those_of_one_process(found: Found, case: str, count: int):
    check_same(found(case, count))


@pytest.mark.slow
def test_each_of_two_groups_of_ranks_may_hold_the_whole_base(found: Found):
    check_same(found("replicated", 4))


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_a_base_in_half_precision_has_a_float32_part_with_the_values_in_it(found: Found, count: int):
    first, last, dtype = found("half", count)
    assert dtype == "torch.float32" and 0 < last < 10 and first != last


@pytest.mark.parametrize("count", RANKS)
def test_what_changes_values_by_hand_is_in_the_next_forward_pass(found: Found, count: int):
    assert found("by hand", count) is True


@pytest.mark.parametrize("count", RANKS)
def test_the_program_of_the_tutorial_runs(found: Found, count: int):
    assert found("page", count) is True


def test_layers_that_share_a_tensor_with_others_are_put_together_with_them():
    alone, between, outside = causal(tied=False), causal(tied=False), causal(tied=False)
    assert sharding._layers(alone) == [*alone.model.layers]
    between.model.layers[1].mlp.up_proj.weight = between.model.layers[0].mlp.up_proj.weight
    assert sharding._layers(between) == []
    outside.model.norm.weight = outside.model.layers[1].input_layernorm.weight
    assert sharding._layers(outside) == [outside.model.layers[0]]
