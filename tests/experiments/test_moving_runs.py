"""Runs from the command line whose active entries move: what they report, save and refuse."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from glue_sparse import SparseDiff
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.diffs import deltas
from glue_sparse.experiments.outcome import summary
from glue_sparse.models.loading import load_classifier
from glue_sparse.records.results import Result
from glue_sparse.reports.figures.runs import explored_curves
from rare import rarely
from rte_runs import go

TRAINING_SHARES: dict[str, Callable[[float], float]] = {
    "dense": lambda forward: 1.0,
    "static": lambda forward: forward,
    "set": lambda forward: forward,
    "snfs": lambda forward: (2 * forward + 1) / 3,
    "rigl": lambda forward: (3 * forward * 4 + 2 * forward + 1) / 3 / 5,
}
"""Method -> share of a dense training's FLOPs, from that of a forward pass."""


@pytest.mark.parametrize("name", rarely(TRAINING_SHARES, ["dense", "rigl"]))
def test_flops_are_reported(tiny_bert: str, rte: Path, tmp_path: Path, name: str):
    """RigL's formulas with f_S = density x f_D of the matrices; attention scores and the head stay dense."""
    more = [] if name == "dense" else ["--density", "0.2"]
    more += [] if name in ("dense", "static") else ["--update_every", "4"]
    result = go(tiny_bert, rte, tmp_path / name, "--method", name, *more)
    flops, forward = result.flops, result.flops["forward_share"]
    assert flops["training_flops"] == pytest.approx(flops["training_flops_per_example"] * 4 * 40)
    assert flops["training_share"] == pytest.approx(TRAINING_SHARES[name](forward))
    if name == "dense":
        assert forward == 1
        with pytest.raises(ValueError, match="explores nothing"):
            explored_curves({"dense": result}, tmp_path, "x")
        return
    assert 0.2 < forward < 0.3 and result.density == 0.2
    assert result.cost["sparsity"] == pytest.approx(0.8, abs=1e-3)
    if name == "rigl":
        check_explored(result, tmp_path)


def check_explored(result: Result, folder: Path) -> None:
    explored = [log["explored"] for log in result.history if "explored" in log]
    assert explored == sorted(explored) and 0.2 < explored[-1] < 0.5
    assert "of dense" in summary(result, "run") and "FLOPs" in summary(result, "run")
    figures = explored_curves({"rigl": result}, folder, "explored")
    assert all(path.stat().st_size for path in figures)


@pytest.mark.slow
def test_from_scratch_starts_random_with_a_random_mask(tiny_bert: str, rte: Path, tmp_path: Path):
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    pretrained = load_classifier(tiny_bert, 2, ("a", "b")).get_parameter(name).detach().flatten()
    still = ("--method", "static", "--density", "0.3", "--learning_rate", "1e-30")
    fine = go(tiny_bert, rte, tmp_path / "a", *still)
    scratch = [go(tiny_bert, rte, tmp_path / f"b{i}", *still, "--from_scratch", "true") for i in range(2)]
    assert [run.model for run in (fine, *scratch)] == [tiny_bert, *[f"{tiny_bert}@scratch42"] * 2]
    diffs = [SparseDiff.from_pretrained(tmp_path / folder) for folder in ("a", "b0", "b1")]
    mask = diffs[0].own_masks()[name].flatten()
    assert pretrained.abs()[mask].min() >= pretrained.abs()[~mask].max()
    torch.testing.assert_close(diffs[0].values[name], pretrained[mask], rtol=1e-5, atol=0)
    assert not torch.equal(diffs[1].own_masks()[name].flatten(), mask)
    assert diffs[1].digest() == diffs[2].digest()  # a function of the seed
    assert diffs[1].values[name].abs().min() < 0.001  # a random third of normal numbers has small ones


def test_a_refreshed_mask_counts_all_that_trained_and_its_deltas_restore(tiny_bert: str, rte: Path, tmp_path: Path):
    fixed = go(tiny_bert, rte, tmp_path / "a", "--method", "random", "--density", "0.05")
    flags = ("--method", "random", "--density", "0.05", "--update_every", "epoch", "--delta_checkpoints", "true")
    result = go(tiny_bert, rte, tmp_path / "b", *flags, "--save_strategy", "epoch")
    assert fixed.trained_entries < result.trained_entries <= 4 * fixed.trained_entries
    assert result.cost["trainable"] == fixed.cost["trainable"]
    found = result.checkpoints
    assert found["count"] == 4 and 0 < found["bytes_mean"] < found["dense_bytes"] / 3
    assert found["bytes_total"] == sum(p.stat().st_size for p in (tmp_path / "b" / "deltas").iterdir())
    model, whole = (load_classifier(tiny_bert, 2, ("a", "b")) for _ in range(2))
    deltas.restore(model, tmp_path / "b")
    SparseDiff.from_pretrained(tmp_path / "b").apply(whole)
    assert all(torch.equal(tensor, current_tensors(whole)[n]) for n, tensor in current_tensors(model).items())


def test_a_late_choice_by_a_named_score_holds_the_budget_and_its_deltas_restore(
    tiny_bert: str, rte: Path, tmp_path: Path
):
    flags = ("--method", "score", "--score", "grasp", "--density", "0.05", "--distribution", "erk")
    late = ("--choose_after", "0.25", "--delta_checkpoints", "true", "--save_strategy", "epoch")
    result = go(tiny_bert, rte, tmp_path / "a", *flags, *late, "--num_samples", "24", "--num_train_epochs", "1")
    assert result.cost["left_entries"] == 0 and result.trained_entries == result.cost["trainable"]
    assert result.cost["trainable"] == int(0.05 * result.cost["num_entries"])
    assert (result.arguments["score"], result.arguments["choose_after"]) == ("grasp", 0.25)
    model, whole = (load_classifier(tiny_bert, 2, ("a", "b")) for _ in range(2))
    deltas.restore(model, tmp_path / "a")
    SparseDiff.from_pretrained(tmp_path / "a").apply(whole)
    assert all(torch.equal(tensor, current_tensors(whole)[n]) for n, tensor in current_tensors(model).items())


def test_the_leak_of_the_original_changes_every_weight(tiny_bert: str, rte: Path, tmp_path: Path):
    flags = ("--method", "random", "--density", "0.05", "--weight_decay", "0.1", "--optim", "sgd")
    tight = go(tiny_bert, rte, tmp_path / "a", *flags)
    leaky = go(tiny_bert, rte, tmp_path / "b", *flags, "--legacy_decay", "true")
    assert leaky.cost["stored_bytes"] > 4 * tight.cost["stored_bytes"]
    assert leaky.trained_entries == leaky.cost["num_entries"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--method", "rigl", "--density", "0.0001"), "leaves nothing of bert.encoder"),
        (("--method", "rigl", "--drop_fraction", "2"), r"drop_fraction: must be in \[0, 1\]"),
        (("--method", "set", "--update_every", "sometimes"), "update_every` is a number of steps"),
        (("--method", "set", "--merge_every", "2", "--simulate", "true", "--num_workers", "2"),
         "leave `merge_every` out"),
        (("--method", "fish", "--update_every", "2", "--merge_every", "2", "--simulate", "true", "--num_workers", "2"),
         "refresh_every"),
        (("--method", "fish", "--delta_checkpoints", "true", "--merge_every", "2", "--simulate", "true",
          "--num_workers", "2"), "leave `merge_every` out"),
        (("--method", "dense", "--dataloader_drop_last", "true", "--per_device_train_batch_size", "64"),
         "40 training examples do not fill a batch of 64"),
        (("--method", "static", "--tensors", "*.nowhere"), "matches no parameter"),
        (("--method", "static", "--tensor_density", "*.0.*=3"), r"density` must be in \(0, 1\]"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(tiny_bert: str, rte: Path, tmp_path: Path, flags: tuple[str, ...], message: str):
    with pytest.raises(ValueError, match=message):
        go(tiny_bert, rte, tmp_path / "run", *flags)
    assert not (tmp_path / "run" / "results.json").exists()
