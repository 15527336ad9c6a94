"""Predicted bytes of collectives against those that FSDP2 hands to gloo between two processes."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from counted_calls import CASES, SHAPE
from forked import run_ranks
from glue_sparse.scaling.shapes import Decoder
from glue_sparse.scaling.traffic import Sharding, Way, calls, handed_bytes
from rare import rarely
from shared_runs import made_once

HELPERS = Path(__file__).parents[1] / "helpers"
DECODER = Decoder(**SHAPE, source="tests")
USUAL = ["frozen", "lora, two micro-steps"]


def counted(name: str, factory: pytest.TempPathFactory) -> dict[str, int]:
    """Bytes that the first of two ranks handed to each operation in a step, and its calls."""
    group = [other for other in CASES if (other in USUAL) == (name in USUAL)]

    def make(folder: Path) -> None:
        run_ranks(HELPERS / "counted_calls.py", str(folder / "found.json"), *group, count=2)

    return json.loads((made_once(factory, f"counted_calls{len(group)}", make) / "found.json").read_text())[name]


def predicted(case: dict[str, Any]) -> dict[str, int]:
    """The same by formula."""
    rank, is_frozen = case.get("rank", 0), case.get("frozen", False)
    way = Way("tried", whole=not rank and not is_frozen, rank=rank)
    sharding = Sharding(2, item_bytes=2 if case.get("half") else 4, reshards=case.get("reshards", True),
                        micro_steps=case.get("micro_steps", 1))  # fmt: skip
    found = calls(DECODER, way, sharding)
    total: Counter[str] = Counter()
    for (_, operation), count in handed_bytes(found).items():
        total[operation] += count
    for call in found:
        total[f"{call.operation} calls"] += call.count
    return dict(total)


@pytest.mark.parametrize("name", rarely(CASES, USUAL))
def test_predicted_bytes_and_calls_are_those_of_fsdp2(name: str, tmp_path_factory: pytest.TempPathFactory):
    assert predicted(CASES[name]) == counted(name, tmp_path_factory)
