"""`sparsify_model` and `SparseOptimizer` in a plain PyTorch loop."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from glue_sparse import SparseDiff, detach
from glue_sparse.core.active import active_tensors, current_masks
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.methods.moving.drop_grow import with_changes
from glue_sparse.methods.moving.plain_loop import SparseOptimizer, sparsify_model
from glue_sparse.methods.moving.rules import RIGL, SET, SNFS, Rule
from networks import bert, gpt2
from plain_loop import batch, conv_net, loss_of, optimizer_of, sparse, train

RULES = {name: with_changes(rule, every=4) for name, rule in {"set": SET, "snfs": SNFS, "rigl": RIGL}.items()}


def same(first: nn.Module, second: nn.Module) -> bool:
    one, other = current_tensors(first), current_tensors(second)
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def through_file(state: Any) -> Any:
    """Saved and loaded without pickled code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_sparsity_is_exact_and_zeros_are_real():
    model = conv_net()
    sparsify_model(model, 0.9, "erk")
    kept = sum(int(mask.sum()) for mask in current_masks(model).values())
    assert kept == round(0.1 * (216 + 432 + 480))
    detach(model)
    assert dict(model.named_parameters()).keys() == dict(conv_net().named_parameters()).keys()
    assert sum(int((p != 0).sum()) for n, p in model.named_parameters() if p.dim() > 1) == kept


@pytest.mark.parametrize("network", [bert, gpt2])
def test_of_a_transformer_only_the_matrices_inside_layers(network: Any):
    model = network()
    sparsify_model(model, 0.5)
    names = [name for name, _ in active_tensors(model)]
    assert len(names) == (12 if network is bert else 8)
    assert not any(part in name for name in names for part in ("embed", "wte", "pooler", "score", "norm", "ln_"))


def test_a_decoder_tied_to_an_embedding_stays_dense():
    model = nn.ModuleDict({"table": nn.Embedding(9, 4), "mix": nn.Linear(4, 4), "out": nn.Linear(4, 9, bias=False)})
    model["out"].weight = model["table"].weight
    sparsify_model(model, 0.5)
    assert [name for name, _ in active_tensors(model)] == ["mix.weight"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", RULES)
def test_resumed_equals_uninterrupted_bit_for_bit(name: str, optimizer: str):
    whole, steps = sparse(RULES[name], optimizer=optimizer, num_steps=30)
    for step in range(13):
        train(whole, steps, step)
    stored = through_file({"model": whole.state_dict(), "optimizer": steps.state_dict()})
    for step in range(13, 30):
        train(whole, steps, step)

    fresh = conv_net(seed=5)
    sparsify_model(fresh, 0.8, seed=9)  # other weights, other masks: all comes from the file
    fresh.load_state_dict(stored["model"])
    resumed = SparseOptimizer(optimizer_of(fresh, optimizer), fresh, RULES[name], num_steps=30)
    resumed.load_state_dict(stored["optimizer"])
    for step in range(13, 30):
        train(fresh, resumed, step)
    assert same(whole, fresh)
    assert [e.num_explored for _, e in active_tensors(whole)] == [e.num_explored for _, e in active_tensors(fresh)]
    for (_, one), (_, other) in zip(active_tensors(whole), active_tensors(fresh), strict=True):
        state, again = steps.state[one.values], resumed.state[other.values]
        assert state.keys() == again.keys() and all(torch.equal(state[k], again[k]) for k in state)


def test_optimizer_state_before_the_models_is_refused():
    model, steps = sparse(RULES["snfs"])
    for step in range(9):
        train(model, steps, step)
    fresh, other = sparse(RULES["snfs"])
    with pytest.raises(ValueError, match="load the model's state_dict before"):
        other.load_state_dict(through_file(steps.state_dict()))


@pytest.mark.parametrize("name", RULES)
def test_an_optimizer_built_before_trains_the_same(name: str):
    after, steps = sparse(RULES[name])
    before = conv_net()
    early = optimizer_of(before)
    sparsify_model(before, 0.8)
    other = SparseOptimizer(early, before, RULES[name], num_steps=40)
    for step in range(10):
        assert train(after, steps, step) == train(before, other, step)
    assert same(after, before)


def test_state_is_as_small_as_the_active_entries():
    model, steps = sparse(RULES["rigl"], sparsity=0.9, optimizer="adamw")
    for step in range(10):
        train(model, steps, step)
    sizes = {p.numel() for p in steps.state if p.dim() == 1}
    for _, entries in active_tensors(model):
        assert entries.num_active in sizes
        assert steps.state[entries.values]["exp_avg"].shape == (entries.num_active,)
    held = sum(v.numel() for state in steps.state.values() for v in state.values() if v.dim())
    active = sum(entries.num_active for _, entries in active_tensors(model))
    dense = sum(p.numel() for n, p in conv_net().named_parameters() if p.dim() == 1)
    assert held == 2 * (active + dense)


def test_scheduler_groups_and_zero_grad():
    model, steps = sparse(RULES["rigl"])
    extra = nn.Parameter(torch.ones(3))
    steps.add_param_group({"params": [extra], "lr": 0.5, "momentum": 0.0, "weight_decay": 0.0})
    schedule = torch.optim.lr_scheduler.StepLR(steps, step_size=2, gamma=0.1)
    for step in range(4):
        (loss_of(model, step) + extra.sum()).backward()
        steps.step()
        schedule.step()
        steps.zero_grad()
    assert steps.param_groups[0]["lr"] == pytest.approx(0.05 * 0.01) and steps.param_groups[-1]["lr"] < 0.5
    assert extra.grad is None and float(extra.detach()[0]) == pytest.approx(1 - 0.5 - 0.5 - 0.05 - 0.05)
    assert steps.num_done == 4 and "SGD" in repr(steps)


def test_a_closure_is_called_once_and_trains_alike():
    plain, steps = sparse(RULES["rigl"])
    closed, other = sparse(RULES["rigl"])
    calls = []
    for step in range(12):

        def closure(step: int = step) -> torch.Tensor:
            other.zero_grad()
            loss = loss_of(closed, step)
            loss.backward()
            calls.append(step)
            return loss

        expected = train(plain, steps, step)
        assert float(other.step(closure)) == expected
    assert calls == list(range(12)) and same(plain, closed)


def test_an_optimizer_that_calls_its_closure_again():
    model, _ = sparse(RULES["set"])
    steps = SparseOptimizer(torch.optim.LBFGS(list(model.parameters()), max_iter=4), model, RULES["set"], num_steps=40)
    losses = []
    for _ in range(3):

        def closure() -> torch.Tensor:
            steps.zero_grad()
            loss = loss_of(model, 0)
            loss.backward()
            return loss

        losses.append(float(steps.step(closure)))
    assert losses[-1] < losses[0]


def test_gradient_accumulation_scores_the_whole_window():
    """fastsparse scores a part of the window and counts micro-batches."""
    whole, steps = sparse(RULES["rigl"])
    parts, other = sparse(RULES["rigl"])
    for model in (whole, parts):  # batch statistics depend on the batch, so they are left out here
        model[1].eval()  # type: ignore[index]
    for step in range(9):
        images, labels = batch(step)
        F.cross_entropy(whole(images), labels).backward()
        for half in (slice(0, 8), slice(8, 16)):
            (F.cross_entropy(parts(images[half]), labels[half]) / 2).backward()
        for optimizer in (steps, other):
            optimizer.step()
            optimizer.zero_grad()
    assert other.num_done == 9
    for name, mask in current_masks(whole).items():
        assert torch.equal(mask, current_masks(parts)[name])


def test_custom_scores_are_plain_functions():
    rule = Rule(lambda p: p.gradient.abs() * p.noise(), keep=lambda p: p.weight.abs() + p.mask, gradients="at_updates")
    model, steps = sparse(with_changes(rule, every=3))
    before = current_masks(model)
    for step in range(8):
        train(model, steps, step)
    assert any(not torch.equal(mask, before[n]) for n, mask in current_masks(model).items())


def test_a_copy_trains_apart_and_a_diff_stores_it():
    model, steps = sparse(RULES["set"])
    base = conv_net()
    for step in range(9):
        train(model, steps, step)
    twin = copy.deepcopy(model)
    SparseDiff.from_model(model).apply(base)
    detach(twin)
    assert same(base, twin)


@pytest.mark.slow
def test_learns_about_as_well_as_expected():
    losses = {}
    for name, rule in RULES.items():
        model, steps = sparse(rule, num_steps=150)
        losses[name] = [train(model, steps, step % 5) for step in range(150)]
    assert all(found[-1] < 0.5 * found[0] for found in losses.values()), {n: f[-1] for n, f in losses.items()}


def test_bad_input_is_one_sentence():
    for arguments, message in (
        ((1.0,), r"sparsity` must be in \[0, 1\)"),
        ((0.5, "kernel"), "unknown distribution 'kernel'"),
        ((0.9999,), "leaves nothing of"),
    ):
        model = conv_net()
        with pytest.raises(ValueError, match=message):
            sparsify_model(model, *arguments)  # type: ignore[arg-type]
        assert not list(active_tensors(model))
    with pytest.raises(ValueError, match="call sparsify_model"):
        SparseOptimizer(optimizer_of(conv_net()), conv_net(), SET, num_steps=10)
    model = conv_net()
    sparsify_model(model, 0.5)
    with pytest.raises(ValueError, match="does not train the active entries"):
        SparseOptimizer(torch.optim.SGD([nn.Parameter(torch.ones(1))]), model, SET, num_steps=10)
    with pytest.raises(ValueError, match="already has active entries"):
        sparsify_model(model, 0.5)
    with pytest.raises(ValueError, match="drop_fraction"):
        with_changes(SET, drop_fraction=1.5)
    with pytest.raises(ValueError, match="no linear, convolutional or recurrent"):
        sparsify_model(nn.LayerNorm(4), 0.5)
