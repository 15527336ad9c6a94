"""What hot paths must move and compute: the formulas beside counts, the floors, and the table; no times."""

import json
from pathlib import Path

import pytest
import torch

from glue_sparse.benchmarks.limits import ceilings, costs, paths
from glue_sparse.benchmarks.limits.ceilings import Ceilings
from glue_sparse.benchmarks.limits.costs import Part
from glue_sparse.benchmarks.limits.run import run
from glue_sparse.core.active import active_tensors
from glue_sparse.costs.flops import forward_flops

SIZE = paths.SMALL
SPEED = Ceilings(100.0, {"float32": 10.0, "bfloat16": 20.0})


def test_products_of_a_forward_pass_are_those_that_are_counted():
    counted = forward_flops(paths.bert(SIZE), paths.batch_of(SIZE)).dense * SIZE.rows
    assert SIZE.linear + SIZE.attention == counted
    forward, backward, *_ = costs.full_step(SIZE, 1000)
    assert (forward.flops, backward.flops) == (counted, 2 * counted)


def test_sparse_steps_save_gradients_of_weights_and_what_adam_moves():
    entries = sum(p.numel() for p in paths.bert(SIZE).parameters())
    full = costs.full_step(SIZE, entries)
    all_active = costs.sparse_step(SIZE, SIZE.matrices, SIZE.matrices, 0, 0, 32)
    assert all_active[1].flops == pytest.approx(full[1].flops, rel=1e-2)  # but for pooler and head
    none = costs.sparse_step(SIZE, 0, 0, 0, 0, 32)
    assert full[1].flops - none[1].flops == SIZE.linear
    assert [part.bytes for part in none[2:]] == [0, 0, 0]
    assert sum(part.bytes for part in full) - sum(part.bytes for part in none) == (4 + 4 + 28) * entries


def test_a_floor_is_the_larger_time_of_each_part_and_their_sum():
    parts = (Part("reads", 1000, 50), Part("multiplies", 100, 400), Part("in halves", 100, 400, "bfloat16"))
    assert [part.seconds(SPEED) for part in parts] == [10, 40, 20]
    assert [part.bound(SPEED) for part in parts] == ["memory", "products", "products"]
    assert costs.floor(parts, SPEED) == 70


def test_lines_are_counted_once_in_each_tensor():
    places = [torch.tensor([0, 7, 8, 9, 40]), torch.tensor([0])]
    assert costs.num_lines(places, 32) == 3 + 1
    assert costs.num_lines(places, 64) == 2 + 1


def test_paths_count_what_their_models_hold():
    found = {path.way.name: path for path in paths.paths(SIZE, bf16=False)}
    assert [*found] == [
        "training step, full", "training step, fish", "training step, gates", "Fisher of 4 examples", "select",
        "tiles, forward", "tiles, backward", "apply of a diff", "swap of tasks",
    ]  # fmt: skip
    model = found["training step, fish"].way.model
    active = sum(one.num_active for _, one in active_tensors(model))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    norm, adam, write = found["training step, fish"].parts[2:]
    assert (norm.bytes, adam.bytes) == (4 * trained, 28 * trained) and write.bytes <= (8 + 128) * active
    gates = sum(p.numel() for p in found["training step, gates"].way.model.parameters() if p.requires_grad)
    assert found["training step, gates"].parts[3].bytes == 28 * gates
    one, other = found["apply of a diff"].parts[0].bytes, found["swap of tasks"].parts[0].bytes
    assert one < other < 2.1 * one


def test_ceilings_keep_the_highest():
    tried = ceilings.trials(torch.device("cpu"), quick=True)
    found = ceilings.of(tried, [2.0, 0.5, 1.0])
    assert (found.copy, found.products["bfloat16"]) == (tried[0].amount / 2, 2 * 256**3)
    higher = Ceilings(2 * found.copy, {"float32": 1.0, "bfloat16": 1e12})
    assert found.best(higher) == Ceilings(2 * found.copy, {"float32": found.products["float32"], "bfloat16": 1e12})


def test_the_table_stands_on_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(1, False, True, str(tmp_path / "limits.json"))
    shown = capsys.readouterr().out
    facts = json.loads((tmp_path / "limits.json").read_text())
    assert len(facts["paths"]) == 9 and shown.count("\n| ") == 1 + 1 + 9
    for one in facts["paths"]:
        rates = facts["ceilings"]["copy"], facts["ceilings"]["products"]["float32"]
        assert one["floor"] == pytest.approx(
            sum(max(p["bytes"] / rates[0], p["flops"] / rates[1]) for p in one["parts"])
        )
        assert f"{one['seconds']['median'] / one['floor']:.1f}" in shown
