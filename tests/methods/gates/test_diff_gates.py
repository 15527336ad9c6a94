"""Diff pruning, stage 1, in a Trainer: its optimizer, its penalty, exact resumption, and what it leaves behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from glue_sparse import SparseDiff
from glue_sparse.core.parametrization import current_tensors, held_tensors
from glue_sparse.core.params import head_names, layer_numbers
from glue_sparse.methods.gates.diff_gates import DiffGates
from glue_sparse.methods.gates.gate_counts import expected_open
from glue_sparse.methods.gates.gate_file import FILE_NAME
from glue_sparse.methods.gates.gates import gated_tensors
from glue_sparse.methods.gates.hard_concrete import HardConcrete
from glue_sparse.methods.gates.noise import VERSION
from networks import bert
from training import StopAt, trainer

HEAD = ("classifier.weight", "classifier.bias")


class Watch(TrainerCallback):
    """Keeps what `look` returns after every step."""

    def __init__(self, look: Any):
        self.look, self.seen = look, []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append(self.look(kwargs))


def prepared(model: nn.Module, **options: Any) -> DiffGates:
    method = DiffGates(**options)
    method.attach(model, method.prepare(model, HEAD, lambda count: ()))
    return method


def value(method: DiffGates, model: nn.Module) -> float:
    penalty = method.penalty(model)
    assert penalty is not None
    return penalty.item()


def test_gates_keep_their_rate_under_a_warm_up_and_never_decay(tmp_path: Path):
    rates = Watch(lambda given: [(g["lr"], g["weight_decay"], g["eps"]) for g in given["optimizer"].param_groups])
    run = trainer(tmp_path, method=DiffGates(gate_eps=1e-9), callbacks=[rates], warmup_steps=4, max_steps=8)
    run.train()
    assert {seen[-1] for seen in rates.seen} == {(0.1, 0.0, 1e-9)}
    weights = [seen[0][0] for seen in rates.seen]
    assert weights[0] < weights[2] > weights[-1] == 0.0
    assert rates.seen[0][0][1] == 0.1
    follows = Watch(lambda given: given["optimizer"].param_groups[-1]["lr"])
    trainer(tmp_path, method=DiffGates(gate_schedule="weights"), callbacks=[follows], max_steps=4).train()
    assert follows.seen == pytest.approx([0.075, 0.05, 0.025, 0.0])


def test_every_parameter_is_in_one_group_only(tmp_path: Path):
    run = trainer(tmp_path, method=DiffGates(groups="layer"), max_steps=1)
    run.choose()
    groups = run.create_optimizer().param_groups
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids)) == len([p for p in run.network.parameters() if p.requires_grad])
    logits = {id(p) for name, p in run.network.named_parameters() if "alpha" in name}
    assert logits == {id(p) for p in groups[-1]["params"]}


def test_clipping_weights_leaves_the_gates_alone(tmp_path: Path):
    run = trainer(tmp_path, method=DiffGates(), max_grad_norm=1e-3, max_steps=1)
    run.choose()
    for p in run.network.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    logits = run.method.param_groups(run.network)[0]["params"]
    run.args.max_grad_norm = 1.0
    run._clip_grad_norm(run.network)
    own = {id(p) for p in logits}
    rest = [p.grad for p in run.network.parameters() if p.grad is not None and id(p) not in own]
    for part in ([p.grad for p in logits], rest):
        assert float(torch.stack([g.norm() for g in part]).norm()) == pytest.approx(1.0, rel=1e-4)


def test_penalty_by_hand():
    model = bert()
    layers = layer_numbers(tuple(n for n, _ in model.named_parameters() if n not in HEAD))
    penalties = [0.0, 1e-3, 1e-2, 5.0]
    method = prepared(model, penalty=penalties, groups="tensor", alpha_init=0.5)
    p = torch.sigmoid(torch.tensor(0.5, dtype=torch.float64))
    sizes = {name: held.diff.numel() for name, held in gated_tensors(model)}
    both = sum(penalties[layers[name]] * size * float(p) ** 2 for name, size in sizes.items())
    assert value(method, model) == pytest.approx(both, rel=1e-6)
    released = DiffGates(penalty=penalties, as_released=True)
    released.layers = method.layers
    either = sum(penalties[layers[name]] * (size + 1) * float(p) for name, size in sizes.items())
    assert value(released, model) == pytest.approx(either, rel=1e-6)


def test_the_penalty_is_added_once_per_step_whatever_the_accumulation(tmp_path: Path):
    """And k micro-batches of b examples make the step of one batch of k b, since the noise is that of the step."""
    found = []
    for micro in (1, 4):
        model = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        run = trainer(
            tmp_path, model, DiffGates(penalty=1e-3), optim="sgd", learning_rate=1.0, weight_decay=0.0, max_grad_norm=0,
            per_device_train_batch_size=16 // micro, gradient_accumulation_steps=micro, max_steps=2,
        )  # fmt: skip
        seen = Watch(lambda given: [held.alpha.detach().clone() for _, held in gated_tensors(given["model"])])
        run.add_callback(seen)
        run.train()
        found.append((seen.seen[-1], current_tensors(model)))
    for one, other in zip(*(alphas for alphas, _ in found), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert float((one - 5).abs().max()) > 0
    for name, tensor in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted_run(tmp_path: Path):
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5, "max_steps": 6}
    settings["gradient_accumulation_steps"] = 2
    whole = trainer(tmp_path / "whole", method=DiffGates(penalty=1e-4, seed=3), **settings)
    whole.train()
    cut = trainer(tmp_path / "cut", method=DiffGates(penalty=1e-4, seed=3), callbacks=[StopAt(5)], **settings)
    cut.train()
    checkpoint = tmp_path / "cut" / "checkpoint-5"
    assert (checkpoint / FILE_NAME).is_file() and not (checkpoint / "model.safetensors").exists()
    resumed = trainer(tmp_path / "cut", method=DiffGates(penalty=1e-4, seed=3), **settings)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    one, other = whole.sparse_diff(), resumed.sparse_diff()
    for part in ("indices", "values", "whole"):
        first, second = getattr(one, part), getattr(other, part)
        assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)
    last = "checkpoint-6/" + FILE_NAME
    assert (tmp_path / "whole" / last).read_bytes() == (tmp_path / "cut" / last).read_bytes()
    with pytest.raises(ValueError, match="another base model"):
        trainer(tmp_path / "cut", bert(seed=1), DiffGates()).train(resume_from_checkpoint=str(checkpoint))
    with pytest.raises(ValueError, match="other gates"):
        trainer(tmp_path / "cut", method=DiffGates(groups="none")).train(resume_from_checkpoint=str(checkpoint))


def test_gates_that_saw_older_noise_go_on_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    method, model = DiffGates(), bert()
    method.attach(model, method.prepare(model, HEAD, lambda count: ()))
    state = method._state(model)
    for noise, warns in ((VERSION, False), (1, True)):
        replace(state, noise=noise).write(tmp_path)
        caplog.clear()
        DiffGates().restore(bert(), HEAD, tmp_path)
        assert ("saw other random numbers" in caplog.text) == warns
    replace(state, noise=VERSION + 1).write(tmp_path)
    with pytest.raises(ValueError, match="newer version: update glue_sparse"):
        DiffGates().restore(bert(), HEAD, tmp_path)


@pytest.mark.parametrize("as_released", [False, True])
def test_what_is_evaluated_at_the_end_is_what_is_saved(tmp_path: Path, as_released: bool):
    """Deterministic gates, or as released the last step's sample, in evaluation and in the diff alike."""
    method = DiffGates(penalty=1e-3, as_released=as_released, alpha_init=1.0)
    run = trainer(tmp_path, method=method, max_steps=6, eval_strategy="steps", eval_steps=6)
    run.train()
    before = [log["eval_loss"] for log in run.state.log_history if "eval_loss" in log][-1]
    assert run.evaluate()["eval_loss"] == pytest.approx(before, rel=1e-6)
    fresh = bert()
    base = {name: tensor.clone() for name, tensor in current_tensors(fresh).items()}
    run.sparse_diff().merge_into(fresh)
    again = trainer(tmp_path, fresh)
    assert again.evaluate()["eval_loss"] == pytest.approx(before, rel=1e-6)
    assert any(not torch.equal(tensor, base[name]) for name, tensor in current_tensors(fresh).items())
    logged = [log for log in run.state.log_history if "expected_density" in log][-1]
    share = run.sparse_diff().num_active / sum(p.numel() for n, p in fresh.named_parameters() if n not in HEAD)
    if not as_released:  # entries of tokens that never occur have an open gate and no diff
        assert 0 < share <= logged["gate_density"]
    histogram: Any = logged["gate_histogram"]
    assert sum(histogram) == pytest.approx(1, abs=1e-3)


def test_best_checkpoint_is_restored_before_gates_collapse(tmp_path: Path):
    run = trainer(
        tmp_path, method=DiffGates(), eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2,
        load_best_model_at_end=True, max_steps=6, learning_rate=0.3,
    )  # fmt: skip
    run.train()
    losses = [log["eval_loss"] for log in run.state.log_history if "eval_loss" in log]
    assert losses[-1] > min(losses) and run.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-6)


def test_fixed_layers_stay_and_layers_share_gates():
    model = bert()
    base = {name: tensor.clone() for name, tensor in current_tensors(model).items()}
    method = prepared(model, fix_layer=[0, 2], groups="layer", penalty=1e-7)
    names = {name for name, _ in gated_tensors(model)}
    assert names and all(".layer.0." in name or "pooler" in name for name in names)
    assert len({held.group for _, held in gated_tensors(model)}) == 2
    for _, held in gated_tensors(model):
        held.diff.data.fill_(0.1)
    method.finish(model, None)
    for name, tensor in current_tensors(model).items():
        assert torch.equal(tensor, base[name]) == (name not in names), name
    assert {name for name, _ in held_tensors(model)} == base.keys() - set(HEAD)


def test_layers_are_numbered_from_the_embeddings_on():
    names = tuple(name for name, _ in bert().named_parameters() if name not in head_names(bert()))
    numbers = layer_numbers(names)
    assert numbers["bert.embeddings.word_embeddings.weight"] == 0
    assert numbers["bert.encoder.layer.1.output.dense.bias"] == 2
    assert numbers["bert.pooler.dense.weight"] == 3
    many = layer_numbers(tuple(f"h.{i}.w" for i in range(12)))
    assert many["h.1.w"] == 2 and many["h.11.w"] == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": -1.0}, "`penalty` must be at least 0, got -1.0"),
        ({"penalty": [1e-7, 1e-7]}, "give one, or 4"),
        ({"fix_layer": [7]}, "layers 0 .embeddings. to 3"),
        ({"fix_layer": [0, 1, 2, 3]}, "nothing is left to learn"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        prepared(bert(), **options)


@pytest.mark.slow
def test_penalised_gates_close_and_needed_ones_stay_open():
    """Adam's steps on the penalty alone carry a logit from 5 below 0 in 174 steps (torch AdamW, eps 1e-8, rate 0.1)."""
    model = bert()
    method = prepared(model, groups="none", concrete=HardConcrete())
    optimizer = torch.optim.AdamW(method.param_groups(model))
    crossed = None
    held = next(held for _, held in gated_tensors(model))
    for step in range(1, 200):
        optimizer.zero_grad()
        penalty = method.penalty(model)
        assert penalty is not None
        penalty.backward()
        optimizer.step()
        if crossed is None and float(held.alpha.detach().max()) < 0:
            crossed = step
    assert crossed == pytest.approx(174, abs=2)
    assert float(expected_open(held).detach()) / held.alpha.numel() < 0.5


@pytest.mark.slow
def test_a_diff_is_small_when_gates_close(tmp_path: Path):
    run = trainer(tmp_path, method=DiffGates(penalty=1e-2, groups="none"), num_train_epochs=15)
    run.train()
    diff = run.sparse_diff()
    assert isinstance(diff, SparseDiff) and diff.num_active < 0.5 * sum(p.numel() for p in bert().parameters())


def test_a_model_with_gates_has_no_diff_yet():
    model = bert()
    prepared(model)
    with pytest.raises(ValueError, match="holds gates"):
        SparseDiff.from_model(model)


def test_training_goes_on_after_the_gates_are_gone(tmp_path: Path):
    run = trainer(tmp_path, method=DiffGates(), max_steps=2)
    run.train()
    assert run.cost is not None and run.cost.trainable == run.cost.num_entries
    first = run.sparse_diff()
    again = trainer(tmp_path, run.network, run.method, max_steps=2)
    again.train()
    assert again.cost is not None and again.cost.active_entries == first.num_active < run.cost.active_entries


@pytest.mark.parametrize("changes", [{"optim": "adafactor"}, {"bf16": True}, {"gradient_checkpointing": True}])
def test_gates_train_with_other_optimizers_and_precisions(tmp_path: Path, changes: dict[str, Any]):
    run = trainer(tmp_path, method=DiffGates(penalty=1e-3), max_steps=3, **changes)
    run.train()
    assert run.sparse_diff().num_active > 1000
    assert all(log["loss"] < 100 for log in run.state.log_history if "loss" in log)


def test_gates_are_logged_at_the_end_too(tmp_path: Path):
    run = trainer(tmp_path, method=DiffGates(), max_steps=3, logging_steps=100)
    run.train()
    assert [log["step"] for log in run.state.log_history if "expected_density" in log] == [3]
