"""Dynamic sparse training and masks that are chosen anew, through a real Trainer on a tiny BERT."""

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from glue_sparse import LeakyMask, SparseDiff, fisher, noise
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.core.active import active_tensors, current_masks
from glue_sparse.core.parametrization import current_tensors, detach
from glue_sparse.core.params import encoder_matrices
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.methods.moving.drop_grow import DropGrow
from glue_sparse.methods.moving.rules import RIGL, SET
from glue_sparse.methods.registry import build_method
from networks import bert
from rare import rarely
from training import StopAt, trainer
from watching import equal_runs, method, watched

OPTIMIZERS = ("adamw_torch", "sgd", "adafactor")
NAMES = ("set", "snfs", "rigl")


def scored(**options: Any) -> FixedMask:
    return FixedMask(
        partial(noise, seed=0), density=0.05, update_every=3, score_of=lambda i: partial(noise, seed=i), **options
    )


@pytest.mark.parametrize(("name", "optim"), rarely(product(NAMES, OPTIMIZERS), [*zip(NAMES, OPTIMIZERS, strict=True)]))
def test_counts_are_exact_and_nothing_leaks(tmp_path: Path, name: str, optim: str):
    run, watch = watched(tmp_path, method(name), optim=optim, gradient_accumulation_steps=2)
    total = sum(int(mask.sum()) for mask in watch.before[0][0].values())
    entries = sum(mask.numel() for mask in watch.before[0][0].values())
    assert total == pytest.approx(0.2 * entries, abs=12) and len(watch.before[0][0]) == len(encoder_matrices(bert()))
    moved = 0
    for (old, _), (masks, tensors) in zip(watch.before, watch.after, strict=True):
        assert sum(int(mask.sum()) for mask in masks.values()) == total
        moved += any(not torch.equal(old[n], mask) for n, mask in masks.items())
        assert all(not tensors[n][~mask].any() for n, mask in masks.items())
    assert moved == (2 if name != "rigl" else 1)  # of 6 steps: 2 and 4, or before three quarters only 2
    assert run.state.log_history[-1]["explored"] > 0.2


def test_a_step_that_moves_entries_trains_nothing_under_adamw_with_decay(tmp_path: Path):
    _, watch = watched(tmp_path, method("rigl", every=3), weight_decay=0.5)
    (old_masks, old), (masks, tensors) = watch.before[3], watch.after[3]
    assert any(not torch.equal(old_masks[n], mask) for n, mask in masks.items())
    for n, tensor in tensors.items():
        stayed = masks[n] & old_masks[n] if n in masks else torch.ones_like(tensor, dtype=torch.bool)
        assert torch.equal(tensor[stayed], old[n][stayed])
    for (_, before), (_, after) in ((watch.before[2], watch.after[2]), (watch.before[4], watch.after[4])):
        assert any(not torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize("name", rarely([*NAMES, "refreshed", "leaky"], ["rigl", "leaky"]))
def test_resumed_in_the_middle_of_an_interval_equals_uninterrupted(tmp_path: Path, name: str):
    def how() -> Any:
        known = {"refreshed": scored, "leaky": lambda: LeakyMask(scored())}
        return known[name]() if name in known else method(name, every=3)

    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5}
    whole = trainer(tmp_path / "whole", bert(), how(), **settings)
    whole.train()
    trainer(tmp_path / "cut", bert(), how(), callbacks=[StopAt(5)], **settings).train()
    resumed = trainer(tmp_path / "cut", bert(), how(), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-5"))
    equal_runs(whole, resumed)


@pytest.mark.parametrize("name", rarely(NAMES, ["snfs"]))
def test_best_model_has_the_masks_of_its_checkpoint(tmp_path: Path, name: str):
    run, _ = watched(
        tmp_path, method(name), eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
        num_train_epochs=4, metric_for_best_model="loss", greater_is_better=True,  # the worst, which is not the last
    )  # fmt: skip
    best = Path(str(run.state.best_model_checkpoint))
    assert best.name != f"checkpoint-{run.state.global_step}"
    stored = SparseDiff.from_pretrained(best)
    for n, mask in current_masks(run.network).items():
        assert torch.equal(mask, stored.own_masks()[n])
        assert not current_tensors(run.network)[n][~mask].any()
    assert run.sparse_diff().digest() == stored.digest()


def test_a_finished_run_is_an_ordinary_model_with_zeros(tmp_path: Path):
    run, _ = watched(tmp_path / "run", method("set"))
    masks = current_masks(run.network)
    detach(run.network)
    run.network.save_pretrained(tmp_path / "model")  # type: ignore[operator]
    stock, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for name, mask in masks.items():
        assert not stock.get_parameter(name)[~mask].any() and stock.get_parameter(name)[mask].any()


def test_a_pretrained_model_keeps_its_largest_weights_and_a_random_one_a_random_mask():
    model = bert()
    masks = DropGrow(SET, density=0.3).prepare(model, (), lambda count: [])
    name = next(iter(masks))
    weight = model.get_parameter(name).abs()
    assert weight[masks[name]].min() >= weight[~masks[name]].max()
    drawn = [DropGrow(SET, density=0.3, start="random", seed=s).prepare(model, (), lambda count: []) for s in (0, 0, 1)]
    assert torch.equal(drawn[0][name], drawn[1][name]) and not torch.equal(drawn[0][name], drawn[2][name])
    assert not torch.equal(drawn[0][name], masks[name])


def test_densities_of_single_tensors_and_unknown_patterns():
    method = DropGrow(RIGL, density=0.2, distribution="erk", densities={"*.0.*output.dense.weight": 0.5})
    masks = method.prepare(bert(), (), lambda count: [])
    apart = [n for n in masks if ".0." in n and n.endswith("output.dense.weight")]
    assert len(apart) == 2 and all(masks[n].float().mean() == 0.5 for n in apart)
    assert sum(int(m.sum()) for m in masks.values()) == round(0.2 * sum(m.numel() for m in masks.values()))
    with pytest.raises(ValueError, match="matches no parameter"):
        DropGrow(densities={"*.nowhere.*": 0.5}).prepare(bert(), (), lambda count: [])


def test_refreshed_masks_keep_what_trained_and_drop_its_state(tmp_path: Path):
    run, watch = watched(tmp_path, scored(), weight_decay=0.1)
    steps = [step for step in range(1, 12) if any(
        not torch.equal(watch.after[step - 1][0][n], mask) for n, mask in watch.after[step][0].items()
    )]  # fmt: skip
    assert steps == [3, 6, 9]
    for (_, old), (masks, new) in zip(watch.before, watch.after, strict=True):
        for n, mask in masks.items():
            assert torch.equal(new[n][~mask], old[n][~mask])  # inactive entries do not move, decay or not
    union = {n: torch.zeros_like(mask) for n, mask in watch.after[0][0].items()}
    for masks, _ in watch.after:
        union = {n: union[n] | masks[n] for n in union}
    diff = run.sparse_diff()
    assert all(torch.equal(diff.own_masks()[n], union[n]) for n in union)
    base = bert()
    diff.merge_into(base)
    final = current_tensors(run.network)
    assert all(torch.equal(tensor, final[n]) for n, tensor in current_tensors(base).items())
    state = run.optimizer.state  # type: ignore[union-attr]
    for _, entries in active_tensors(run.network):
        assert not entries.num_active or state[entries.values]["exp_avg"].shape == entries.values.shape


def test_refreshed_fisher_is_that_of_the_model_as_it_is_then(tmp_path: Path):
    score = partial(fisher, progress=False)
    run, watch = watched(tmp_path, FixedMask(score, density=0.05, num_samples=8, update_every=4))
    fresh = bert()
    for n, tensor in watch.after[3][1].items():
        current_tensors(fresh)[n].data.copy_(tensor)
    expected = FixedMask(score, density=0.05, num_samples=8).prepare(
        fresh, run.head, lambda count: run.sample_batches(count, draw=1)
    )
    assert all(torch.equal(mask, expected[n]) for n, mask in watch.after[4][0].items())
    assert any(not torch.equal(mask, watch.after[3][0][n]) for n, mask in watch.after[4][0].items())


def test_legacy_decay_shrinks_what_should_stay_and_the_right_way_does_not(tmp_path: Path):
    settings: dict[str, Any] = {"optim": "sgd", "optim_args": "momentum=0.9", "weight_decay": 0.5, "max_grad_norm": 0}
    base, name = bert(), "bert.encoder.layer.0.output.dense.weight"
    weight = {}
    for leaky in (True, False):
        tight = FixedMask(noise, density=0.05)
        run = trainer(tmp_path / str(leaky), bert(), LeakyMask(tight) if leaky else tight, **settings)
        run.train()
        weight[leaky] = current_tensors(run.network)[name].detach()
    mask = FixedMask(noise, density=0.05).prepare(base, run.head, lambda count: [])[name]  # type: ignore
    old = base.get_parameter(name).detach()
    assert torch.equal(weight[False][~mask], old[~mask])
    ratio = weight[True][~mask] / old[~mask]
    assert float(ratio.max() - ratio.min()) < 1e-5 and 0 < float(ratio.mean()) < 0.98
    # the Nesterov-free recursion of torch's SGD with decay alone, at the rates of the run
    rates = [log["learning_rate"] for log in run.state.log_history if "learning_rate" in log]  # type: ignore
    value, buffer = 1.0, 0.0
    for rate in rates:
        buffer = 0.9 * buffer + 0.5 * value
        value -= rate * buffer
    assert float(ratio.mean()) == pytest.approx(value, rel=1e-4)


def test_what_cannot_work_is_one_sentence(tmp_path: Path):
    with pytest.raises(ValueError, match="use `bf16`"):
        trainer(tmp_path, bert(), method("rigl"), fp16=True)
    with pytest.raises(ValueError, match="load_best_model_at_end"):
        trainer(tmp_path, bert(), scored(), eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True)
    with pytest.raises(ValueError, match="chosen by a score"):
        FixedMask(masks={}, update_every=3)
    with pytest.raises(ValueError, match="cannot train as workers"):
        method("set").prepare_shares(bert(), (), lambda count: [], 2)
    for arguments, message in (
        ({"method": "rigl", "drop_fraction": 1.5}, r"`drop_fraction` must be in \[0, 1\]"),
        ({"method": "rigl", "update_every": -1}, "update_every"),
        ({"method": "set", "density": 0.0}, "density"),
        ({"method": "set", "distribution": "row"}, "has no --distribution row"),
        ({"method": "one_shot", "distribution": "er"}, "has no --distribution er"),
        ({"method": "fish", "drop_fraction": 0.1}, "--drop_fraction goes with"),
        ({"method": "dense", "update_every": 4}, "--update_every goes with"),
        ({"method": "set", "tensor_density": ["stem"]}, "PATTERN=DENSITY"),
    ):
        with pytest.raises(ValueError, match=message):
            build_method(MethodArguments(**arguments), seed=0)  # type: ignore[arg-type]
    run = trainer(tmp_path, bert(), DropGrow(SET, density=1e-4))
    with pytest.raises(ValueError, match="leaves nothing of bert.encoder"):
        run.train()
