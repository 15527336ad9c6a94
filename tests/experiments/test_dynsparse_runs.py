"""DynSparse through a real Trainer on a tiny BERT: tiles, growth, regularization, facts, resumption, flags."""

from pathlib import Path
from typing import Any

import pytest
import torch

from glue_sparse import SparseTrainer
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.core import tensor_files, tiles
from glue_sparse.core.active import active_tensors, current_masks
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.methods import registry
from glue_sparse.methods.moving.drop_grow import DropGrow, with_changes
from glue_sparse.methods.moving.pattern_file import PATTERNS, PATTERNS_FORMAT
from glue_sparse.methods.moving.rules import DYNSPARSE, STATIC, gradient_magnitude, random_score
from glue_sparse.methods.registry import build_method
from networks import bert
from rare import rarely
from training import StopAt, trainer

GRADIENT = {"grow": gradient_magnitude, "gradients": "at_updates"}


def method(changes: dict[str, Any] | None = None, **options: Any) -> DropGrow:
    """12 steps in 4 intervals: updates after 3, 6 and 9 of them."""
    rule = with_changes(DYNSPARSE, **{"intervals": 4, "block_size": 4, **(changes or {})})
    return DropGrow(rule, **{"density": 0.25, "start": "random", "seed": 3, **options})


def finished(folder: Path, how: DropGrow, **changes: Any) -> SparseTrainer:
    run = trainer(folder, bert(), how, **changes)
    run.train()
    return run


@pytest.mark.parametrize(
    "changes", rarely([{}, GRADIENT, {"block_size": 1}, {"block_norm": "linf", "block_size": 8}], [GRADIENT])
)
def test_resumed_in_the_middle_of_an_interval_equals_uninterrupted(tmp_path: Path, changes: dict[str, Any]):
    def run(folder: str, checkpoint: str | None = None, **more: Any) -> SparseTrainer:
        how = method(changes, group_lasso=0.1)
        one = trainer(tmp_path / folder, bert(), how, save_strategy="steps", save_steps=5, **more)
        one.train(resume_from_checkpoint=checkpoint)
        return one

    whole = run("whole")
    run("cut", callbacks=[StopAt(5)])
    resumed = run("cut", str(tmp_path / "cut" / "checkpoint-5"))
    first, second = current_tensors(whole.network), current_tensors(resumed.network)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.method.facts(whole.network) == resumed.method.facts(resumed.network)
    assert (tmp_path / "whole" / PATTERNS).read_bytes() == (tmp_path / "cut" / PATTERNS).read_bytes()
    assert len(resumed.method.facts(resumed.network)["updates"]) == 3
    sizes = {held.block_size for run in (whole, resumed) for _, held in active_tensors(run.network)}
    assert sizes == {changes.get("block_size", 4)}  # both compute in the same way


def test_facts_of_a_run(tmp_path: Path):
    run = finished(tmp_path, method())
    facts = run.method.facts(run.network)
    assert [update["step"] for update in facts["updates"]] == [2, 5, 8]  # after 3, 6 and 9 steps
    explored = {name: held.num_explored / held.shape.numel() for name, held in active_tensors(run.network)}
    assert facts["explored"] == explored and facts["mean_explored"] == pytest.approx(
        sum(explored.values()) / len(explored)
    )
    shares = [update["explored"] for update in facts["updates"]]
    assert 0.25 < shares[0] < shares[1] < shares[2] == facts["mean_explored"]
    patterns, header = tensor_files.read(tmp_path / PATTERNS, PATTERNS_FORMAT)
    assert header["block_size"] == 4
    for name, mask in current_masks(run.network).items():
        counts = patterns[name]
        assert counts.shape == (mask.shape[0] // 4, mask.shape[1] // 4)
        assert int(counts.sum()) == 4 * int(tiles.gathered(mask, 4).sum())  # as many tiles in each of 4 intervals
        assert bool((counts > 0)[tiles.gathered(mask, 4)].all())
        assert float((counts > 0).float().mean()) == pytest.approx(explored[name])


def test_random_and_gradient_growth_choose_differently(tmp_path: Path):
    masks = [current_masks(finished(tmp_path, method(changes)).network) for changes in ({}, GRADIENT)]
    assert any(not torch.equal(mask, masks[1][name]) for name, mask in masks[0].items())


def test_a_static_network_has_no_updates_and_writes_no_patterns(tmp_path: Path):
    run = finished(tmp_path, DropGrow(with_changes(STATIC, block_size=4), density=0.25, start="random"))
    facts = run.method.facts(run.network)
    assert facts["updates"] == [] and facts["mean_explored"] == pytest.approx(0.25)
    assert not (tmp_path / PATTERNS).exists()


def test_frozen_entries_keep_the_values_they_start_with(tmp_path: Path):
    how = DropGrow(STATIC, density=0.25, start="random", inactive="frozen")
    run = trainer(tmp_path, bert(), how)
    run.choose()
    masks = current_masks(run.network)
    start = {name: tensor.clone() for name, tensor in current_tensors(run.network).items()}
    run.train()
    for name, mask in masks.items():
        after = current_tensors(run.network)[name]
        assert torch.equal(after[~mask], start[name][~mask]) and bool((start[name][~mask] != 0).all())
        assert not torch.equal(after[mask], start[name][mask])


def test_regularization_reaches_sparse_tensors_alone(tmp_path: Path):
    """Without gradients' help: a learning rate as usual, and gradients clipped to nothing."""

    def norms(**options: Any) -> tuple[float, float]:
        how = DropGrow(with_changes(STATIC, block_size=4), density=0.25, start="random", **options)
        run = finished(tmp_path, how, optim="sgd", max_grad_norm=1e-12, weight_decay=0.0)
        tensors = current_tensors(run.network)
        sparse = sum(float(tensors[name].square().sum()) for name in current_masks(run.network))
        return sparse, float(tensors["bert.embeddings.word_embeddings.weight"].detach().square().sum())

    plain, lasso, decay = norms(), norms(group_lasso=1.0), norms(weight_decay=1.0)
    assert lasso[0] < 0.98 * plain[0] and decay[0] < 0.98 * plain[0]
    assert lasso[1] == plain[1] == decay[1]


def test_flags_reach_the_method():
    def built(**flags: Any) -> DropGrow:
        how = build_method(MethodArguments(density=0.1, **flags), 0)
        assert isinstance(how, DropGrow)
        return how

    rule = built(method="dynsparse").rule
    assert rule == DYNSPARSE and rule.grow is random_score and rule.schedule.intervals == 160
    how = built(method="dynsparse", block_size=16, block_norm="l2", num_updates=80, grow="gradient", drop_fraction=0.75,
                entrants="mean", group_lasso=0.3, sparse_weight_decay=0.2, weight_init="glorot")  # fmt: skip
    rule = how.rule
    assert (rule.block_size, rule.block_norm, rule.schedule.intervals, rule.entrants) == (16, "l2", 80, "mean")
    assert rule.grow is gradient_magnitude and rule.gradients == "at_updates" and rule.when == "after_step"
    assert rule.schedule.drop_fraction == 0.75 and rule.regrown == "never"
    assert (how.group_lasso, how.weight_decay, how.initial, how.inactive) == (0.3, 0.2, "glorot", "zero")
    assert built(method="dynsparse", update_every="7").rule.schedule.intervals is None
    assert built(method="rigl", num_updates=5, block_size=8).rule.schedule.intervals == 5
    assert built(method="static", block_size=8, inactive="frozen").inactive == "frozen"
    assert built(method="static", block_size=8).block_size == 8


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"method": "rigl", "num_updates": 5, "update_every": "5"}, "^--num_updates and --update_every both say how"),
        ({"method": "dynsparse", "update_until": 0.5}, "^--update_until goes with --update_every: the intervals"),
        ({"method": "rigl", "update_until": 0.5, "num_updates": 5}, "^--update_until goes with --update_every"),
        ({"method": "fish", "block_size": 4}, "^--block_size goes with --method static or set"),
        ({"method": "rigl", "grow": "random"}, "^--grow goes with --method dynsparse, not with rigl$"),
        ({"method": "static", "num_phases": 4}, "^--num_phases goes with --method alternate, not with static$"),
    ],
)
def test_flags_that_do_not_go_together(flags: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        registry.check(MethodArguments(**flags))


def test_what_cannot_work_is_one_sentence(tmp_path: Path):
    with pytest.raises(ValueError, match=r"^`num_updates` 13 needs at least as many steps, and this run has 12: lower"):
        finished(tmp_path, method({"intervals": 13}))
    with pytest.raises(ValueError, match=r"^tiles of 6x6 do not divide bert.encoder.layer.0.attention.self.query"):
        finished(tmp_path, method({"block_size": 6}))
    with pytest.raises(ValueError, match="^`weight_init` and `variance` change active weights alone"):
        method(inactive="frozen", initial="glorot")
    with pytest.raises(ValueError, match="^`group_lasso` must be at least 0, got -1$"):
        method(group_lasso=-1)
    with pytest.raises(ValueError, match="is less than one of its 4 tiles of 8x8: use a larger `density` or smaller"):
        finished(tmp_path, method({"block_size": 8}, density=0.1))
