"""Two real worker processes (gloo on the CPU) against one process with the same global batch."""

import json
from pathlib import Path

import pytest
import torch

from forked import run_ranks
from glue_sparse import SparseDiff
from networks import bert
from rare import rarely
from shared_runs import made_once

HELPERS = Path(__file__).parents[1] / "helpers"
MOVING = ["static", "set", "snfs", "rigl", "dynsparse", "tiles", "phases", "refreshed"]
USUAL = ["rigl", "refreshed"]


def trained(factory: pytest.TempPathFactory, name: str, methods: list[str]) -> tuple[Path, Path]:
    """(folder of the single process, folder of the two workers), in which these methods have trained."""
    def make(folder: Path) -> None:
        for name, batch, count in (("one", "8", 1), ("two", "4", 2)):
            (folder / name).mkdir()
            run_ranks(HELPERS / "two_workers.py", str(folder / name), batch, *methods, count=count)

    folder = made_once(factory, name, make)
    return folder / "one", folder / "two"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of what an ordinary run of the tests looks at."""
    return trained(tmp_path_factory, "two_workers", ["fish", "gates", *USUAL])


@pytest.fixture(scope="module")
def moving_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same of the other methods."""
    return trained(tmp_path_factory, "moving_workers", [name for name in MOVING if name not in USUAL])


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_ranks_agree_with_each_other_and_with_one_process(runs: tuple[Path, Path]):
    one, two = runs
    alone, first, second = read(one / "rank0.json"), read(two / "rank0.json"), read(two / "rank1.json")
    assert (alone["world"], first["world"], second["world"]) == (1, 2, 2)
    assert first["digest"] == second["digest"] == alone["digest"]
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    diffs = [SparseDiff.from_pretrained(path) for path in (one / "fish0", two / "fish0", two / "fish1")]
    for name, values in diffs[1].values.items():
        assert torch.equal(values, diffs[2].values[name])
        torch.testing.assert_close(values, diffs[0].values[name], rtol=1e-4, atol=1e-6)


def test_ranks_exchange_the_sums_of_each_stage_of_a_score(runs: tuple[Path, Path]):
    """GraSP needs the gradient of all examples before it can take its product with a Hessian."""
    one, two = runs
    alone, *ranks = (read(path)["grasp"] for path in (one / "rank0.json", two / "rank0.json", two / "rank1.json"))
    assert ranks[0] == ranks[1] and len(ranks[0]) == len(alone) > 100
    assert len(set(ranks[0]) & set(alone)) >= 0.98 * len(alone)  # rounding may change places at the border


def test_ranks_see_the_same_gates(runs: tuple[Path, Path]):
    """Noise and penalty are those of a single process with the same global batch."""
    one, two = runs
    alone, first, second = (SparseDiff.from_pretrained(p) for p in (one / "gates0", two / "gates0", two / "gates1"))
    assert first.num_active > 1000
    for name, values in first.values.items():
        assert torch.equal(first.indices[name], second.indices[name]) and torch.equal(values, second.values[name])
    fresh, other = bert(), bert()
    alone.merge_into(fresh)
    first.merge_into(other)
    for name, tensor in fresh.named_parameters():
        torch.testing.assert_close(other.get_parameter(name), tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", rarely(MOVING, USUAL))
def test_ranks_move_to_the_same_entries(request: pytest.FixtureRequest, name: str):
    """Growth gradients are averaged over ranks, and chance does not depend on the rank (RigL, appendix M)."""
    one, two = request.getfixturevalue("runs" if name in USUAL else "moving_runs")
    alone, *ranks = (SparseDiff.from_pretrained(p) for p in (one / f"{name}0", two / f"{name}0", two / f"{name}1"))
    assert ranks[0].digest() == ranks[1].digest()
    masks, same = alone.own_masks(), 0
    for key, mask in ranks[0].own_masks().items():
        same += int((mask & masks[key]).sum())
    heads = [diff.whole["classifier.weight"] for diff in (ranks[0], alone)]
    torch.testing.assert_close(*heads, rtol=1e-2, atol=1e-4)
    assert same >= 0.97 * alone.num_active  # gradients that differ by rounding may change places at the border


def test_only_active_values_and_the_head_cross_the_wire(runs: tuple[Path, Path]):
    report = read(runs[1] / "rank0.json")
    assert report["bytes_per_step"] == 4 * report["trainable"]
    assert report["buffer_bytes_per_step"] == 0


def test_one_rank_writes(runs: tuple[Path, Path]):
    checkpoint = runs[1] / "fish" / "checkpoint-6"
    assert sorted(p.name for p in checkpoint.glob("*diff*")) == ["sparse_diff.safetensors"]
    assert len(list(checkpoint.glob("rng_state_*.pth"))) == 2
