"""The base of a model that trains: bit for bit, whatever is done before and after."""

import copy

import pytest
import torch
from torch import nn

from decoders import causal, gpt2_causal, logits, masks, shift
from glue_sparse import attach, disabled, reference, reindex
from glue_sparse.core.active import active_tensors
from networks import bert


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_around_the_base_is_the_step_without_it(tied: bool, dtype: torch.dtype):
    base, plain, model = (causal(tied, dtype) for _ in range(3))
    want = logits(base)
    ids = torch.arange(3, 13)[None]
    trains = []
    for net in (plain, model):
        attach(net, masks(net))
        trains.append([p for p in net.parameters() if p.requires_grad])
    optimizers = [torch.optim.AdamW(found, lr=1e-2) for found in trains]
    for _ in range(3):
        for net, optimizer in zip((plain, model), optimizers, strict=True):
            loss = net.train()(ids, labels=ids).loss
            if net is model:
                with disabled(net):
                    assert torch.equal(logits(net), want)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    for one, other in zip(*trains, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(logits(model), want)


def test_a_reference_has_no_parameters_and_drops_nothing_out():
    model, base = gpt2_causal(), gpt2_causal()
    attach(model, masks(model))
    shift(model, 0.1)
    ref = reference(model)
    model.train()
    ids = torch.arange(5, 15)[None]
    assert torch.equal(ref(ids).logits, logits(base))
    assert not list(ref.parameters()) and ref.config is model.config and all(m.training for m in model.modules())
    assert not ref(ids).logits.requires_grad and model(ids).logits.requires_grad


def test_the_values_come_back_after_an_error():
    model = causal()
    attach(model, masks(model))
    shift(model)
    before = logits(model)
    with pytest.raises(KeyError), disabled(model):
        raise KeyError
    assert torch.equal(logits(model), before)
    with pytest.raises(ValueError, match="already"), disabled(model), disabled(model):
        pass
    assert torch.equal(logits(model), before)


def test_a_cast_and_a_copied_model_have_their_base_too():
    model, base = causal(), causal().to(torch.bfloat16)
    attach(model, masks(model))
    shift(model)
    twin = copy.deepcopy(model).to(torch.bfloat16)
    with disabled(twin):
        assert torch.equal(logits(twin), logits(base))


def _moved(model: nn.Module) -> None:
    others = masks(model, seed=1)
    attach(model, masks(model))
    reindex(model, others)


@pytest.mark.parametrize(("prepare", "reason"), [
    (lambda model: None, "call attach first"),
    (lambda model: attach(model, masks(model), "zero"), "are zero"),
    (_moved, "have moved"),
    (lambda model: attach(model, {n: m for n, m in masks(model).items() if "norm" not in n}), "trains whole"),
])  # fmt: skip
def test_a_base_that_is_gone_is_refused(prepare, reason: str):
    model = causal()
    prepare(model)
    with pytest.raises(ValueError, match=reason), disabled(model):
        pass
    with pytest.raises(ValueError, match=reason):
        reference(model)


def test_what_the_base_has_costs_k_numbers():
    model = bert()
    attach(model, masks(model))
    for _, entries in active_tensors(model):
        assert entries.base_values is not None and entries.base_values.shape == entries.values.shape
