"""Values reach their weights after each step of an optimizer, and forward passes write only what might have changed."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from decoders import causal
from glue_sparse import attach, check_folded, detach, disabled, fold
from glue_sparse.core import operators, shards
from glue_sparse.core.active import active_tensors
from glue_sparse.core.parametrization import original
from networks import bert

IDS = torch.arange(2, 14).reshape(2, 6)


class SilentSGD(torch.optim.Optimizer):
    """Steps by `.data`, as many optimizers of other libraries do, which torch does not count."""

    def __init__(self, params: Any, lr: float = 0.1):
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.data.add_(parameter.grad, alpha=-group["lr"])


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "silent": SilentSGD, "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
}  # fmt: skip


def network(dtype: torch.dtype = torch.float32) -> Any:
    """A tied decoder: rows of words and parts of matrices are active."""
    model = causal(tied=True, dtype=dtype)
    chance = torch.Generator().manual_seed(0)
    attach(model, {name: torch.rand(p.shape, generator=chance) < 0.04 for name, p in model.named_parameters()
                   if "proj" in name or "embed" in name})  # fmt: skip
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("values"))
    return model


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [entries.values for _, entries in active_tensors(model)]


def backward(model: Any) -> float:
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return loss.item()


def plain_loss(model: Any) -> float:
    """By the plain formula: a plain model with the values in its weights."""
    alone = copy.deepcopy(model)
    detach(alone)
    return alone(input_ids=IDS, labels=IDS).loss.item()


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Grows by one with each tensor that is written to."""
    found: list[int] = []

    def write(weight: torch.Tensor, indices: torch.Tensor, values: torch.Tensor) -> None:
        found.append(len(indices))
        weight.data.view(-1)[indices.long()] = values.to(weight.dtype)

    monkeypatch.setattr(operators, "write", write)
    monkeypatch.setattr(shards.operators, "write", write)
    yield found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_after_a_step_the_weights_hold_the_values_and_forward_passes_write_nothing(
    kind: str, dtype: torch.dtype, writes: list[int]
):
    model = network(dtype)
    optimizer = OPTIMIZERS[kind](trained(model))
    for step in range(3):
        backward(model)
        optimizer.step()
        optimizer.zero_grad()
        check_folded(model)
        count = len(writes)
        losses = {backward(model) for _ in range(3)}  # micro-batches
        optimizer.zero_grad()
        assert len(writes) == count and losses == {plain_loss(model)}, step


def test_a_model_is_folded_once_a_step_however_often_it_is_used(writes: list[int]):
    model = network()
    optimizer = torch.optim.SGD(trained(model), lr=0.1)
    backward(model)
    optimizer.step()
    before = len(writes)
    for _ in range(4):
        backward(model)
    optimizer.step()
    assert len(writes) - before == len(trained(model))


@pytest.mark.parametrize("how", ["in place", "other memory", "silently", "by a loop"])
def test_a_change_by_hand_before_the_first_step_is_in_the_next_forward_pass(how: str):
    model = network()
    backward(model)
    for values in trained(model):
        with torch.no_grad():
            if how == "in place":
                values.mul_(3)
            elif how == "other memory":
                values.data = values.data * 3
            elif how == "silently":
                values.data.mul_(3)
            else:
                values.data -= 0.5 * values.grad  # type: ignore[operator]
    assert backward(model) == plain_loss(model)
    check_folded(model)


def stepped() -> tuple[Any, torch.optim.Optimizer]:
    model = network()
    optimizer = torch.optim.SGD(trained(model), lr=0.1)
    for _ in range(3):
        backward(model)
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def test_a_change_that_torch_counts_is_seen_amid_training():
    model, _ = stepped()
    with torch.no_grad():
        for values in trained(model):
            values.mul_(3)
    assert backward(model) == plain_loss(model)


def test_a_silent_change_amid_training_is_told_by_fold_and_found_by_the_check():
    model, _ = stepped()
    backward(model)
    for values in trained(model):
        values.data.mul_(3)
    with pytest.raises(RuntimeError, match="does not hold the values .* call fold"):
        check_folded(model)
    fold(model)
    check_folded(model)
    assert backward(model) == plain_loss(model)


def test_averaged_weights_for_an_evaluation_are_seen_and_so_is_their_end():
    model, optimizer = stepped()
    kept = [values.data.clone() for values in trained(model)]
    for values in trained(model):
        values.data.mul_(3)
    model.eval()
    assert model(input_ids=IDS, labels=IDS).loss.item() == plain_loss(model)
    for values, old in zip(trained(model), kept, strict=True):
        values.data.copy_(old)
    model.train()
    assert backward(model) == plain_loss(model)
    optimizer.step()
    check_folded(model)


def test_values_that_are_changed_by_hand_after_each_step_are_written_in_each_pass():
    """As where weights are clipped by `.data`; seen after the first step, since a pass compares then."""
    model, optimizer = network(), None
    optimizer = torch.optim.SGD(trained(model), lr=0.1)
    for _ in range(7):
        assert backward(model) == plain_loss(model)
        optimizer.step()
        optimizer.zero_grad()
        for values in trained(model):
            values.data.clamp_(-0.01, 0.01)


def test_a_step_that_a_scaler_leaves_out_changes_nothing():
    model, optimizer = stepped()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    before = {name: original(model, name).clone() for name, _ in active_tensors(model)}
    scaler.scale(model(input_ids=IDS, labels=IDS).loss).backward()
    trained(model)[0].grad[0] = torch.inf  # type: ignore[index]
    scaler.step(optimizer)
    scaler.update()
    check_folded(model)
    assert all(torch.equal(original(model, name), old) for name, old in before.items())


def test_a_graph_from_before_a_step_is_refused_as_for_a_plain_model():
    model, optimizer = stepped()
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_base_is_there_while_entries_are_disabled_amid_training():
    model, optimizer = stepped()
    loss = model(input_ids=IDS, labels=IDS).loss
    with disabled(model):
        base = model(input_ids=IDS, labels=IDS).loss.item()
    assert base == causal(tied=True)(input_ids=IDS, labels=IDS).loss.item()
    loss.backward()  # a graph from before
    optimizer.step()
    assert backward(model) == plain_loss(model)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: reloaded(model)], ids=["copy", "state"])
def test_a_copy_trains_alone(copied: Callable[[Any], Any]):
    model, _ = stepped()
    other = copied(model)
    before = plain_loss(model)
    optimizer = SilentSGD(trained(other))
    for _ in range(2):
        backward(other)
        optimizer.step()
        optimizer.zero_grad()
    assert backward(other) == plain_loss(other) != before == plain_loss(model) == backward(model)
    check_folded(model)
    check_folded(other)


def reloaded(model: Any) -> Any:
    other = network()
    other.load_state_dict(model.state_dict())
    assert backward(other) == plain_loss(model)
    other.zero_grad()
    return other


def test_weights_of_another_base_get_the_values():
    model, _ = stepped()
    for name, _ in active_tensors(model):
        weight = original(model, name)
        with torch.no_grad():
            weight.copy_(torch.ones_like(weight))
    backward(model)
    check_folded(model)


def test_models_that_are_gone_are_not_kept():
    import gc
    import weakref

    model, optimizer = stepped()
    weight = weakref.ref(original(model, "model.embed_tokens.weight"))
    del model, optimizer
    gc.collect()
    assert weight() is None


def test_a_model_that_was_sharded_as_a_whole_is_refused_at_the_first_step(monkeypatch: pytest.MonkeyPatch):
    model, optimizer = stepped()
    backward(model)
    monkeypatch.setattr(shards, "is_part", lambda tensor: True)
    with pytest.raises(RuntimeError, match="glue_sparse.shard"):
        optimizer.step()


def test_a_classifier_in_evaluation_mode_writes_nothing(writes: list[int]):
    model = bert()
    attach(model, {"bert.encoder.layer.0.output.dense.weight": torch.ones(16, 32, dtype=torch.bool)})
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = len(writes)
    model(input_ids=IDS, labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    model.eval()
    with torch.no_grad():
        for _ in range(5):
            model(input_ids=IDS)
    assert len(writes) - before == 3  # before the first step, after it, and when it was switched to evaluation
