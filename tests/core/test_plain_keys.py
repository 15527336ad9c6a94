"""An attached model saves and loads what a plain model has, and what trains beside it."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from decoders import causal, gpt2_causal, logits, masks, shift, stock
from glue_sparse import attach, detach
from glue_sparse.core.parametrization import persistent_buffers
from glue_sparse.methods.gates.gates import attach_gates
from networks import ImageNet, bert
from rare import rarely


def t5() -> Any:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )


MODELS = {
    "tied": causal, "untied": lambda: causal(tied=False), "gpt2": gpt2_causal,
    "tied half": lambda: causal(dtype=torch.bfloat16), "untied half": lambda: causal(False, torch.bfloat16),
}  # fmt: skip


@pytest.mark.parametrize("name", rarely(MODELS, ["tied", "untied half"]))
def test_stock_loading_finds_every_key(name: str, tmp_path: Path):
    model = MODELS[name]()
    attach(model, masks(model))
    shift(model)
    found, told = stock(model, tmp_path)
    assert not any(told.values()) and found.dtype == model.dtype
    assert torch.equal(logits(found), logits(model))


def test_an_encoder_and_decoder_that_share_a_table(tmp_path: Path):
    model = t5()
    attach(model, masks(model))
    shift(model)
    found, told = stock(model, tmp_path)
    assert not any(told.values())
    detach(model)
    for key, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], tensor), key


def test_a_model_whose_inside_was_attached_has_plain_keys_too(tmp_path: Path):
    model = bert()
    attach(model.bert, masks(model.bert))
    shift(model)
    found, told = stock(model, tmp_path)
    assert not told["missing_keys"]
    detach(model.bert)
    for key, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", rarely(MODELS, ["tied", "untied half"]))
def test_a_state_goes_on_bit_for_bit(name: str):
    model, other = MODELS[name](), MODELS[name]()
    attach(model, masks(model))
    shift(model, 1e-4)  # too small for half precision
    attach(other, masks(other, seed=1))
    other.load_state_dict(model.state_dict())
    for key, parameter in model.named_parameters():
        assert torch.equal(other.get_parameter(key), parameter), key
    assert torch.equal(logits(other), logits(model))


@pytest.mark.parametrize("name", ["tied", "untied half"])
def test_a_plain_state_goes_into_an_attached_model_and_back(name: str):
    model, plain = MODELS[name](), MODELS[name]()
    shift(plain)
    attach(model, masks(model))
    model.load_state_dict(plain.state_dict())
    assert torch.equal(logits(model), logits(plain))
    fresh = MODELS[name]()
    fresh.load_state_dict({key: model.state_dict()[key] for key in fresh.state_dict()})
    assert torch.equal(logits(fresh), logits(plain))


def test_copies_and_detached_models_have_the_keys_that_they_should():
    model = causal()
    plain = set(model.state_dict())
    attach(model, masks(model))
    twin = copy.deepcopy(model)
    assert set(twin.state_dict()) == set(model.state_dict()) > plain
    detach(twin)
    assert set(twin.state_dict()) == plain and twin._keys_to_ignore_on_save == set()
    assert set(model.state_dict()) > plain and model._keys_to_ignore_on_save


def test_a_network_of_ones_own():
    model, other = ImageNet(), ImageNet()
    attach(model, masks(model, 0.3))
    shift(model)
    plain = {key: tensor for key, tensor in model.state_dict().items() if "parametrizations" not in key}
    other.load_state_dict(plain)
    detach(model)
    for key, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor), key


def test_gates_are_saved_as_what_they_make_of_the_model(tmp_path: Path):
    model = bert()
    attach_gates(model, tuple(name for name, _ in model.bert.named_parameters(prefix="bert")))
    shift(model, 0.5)
    found, told = stock(model.eval(), tmp_path)
    assert not any(told.values())
    ids = torch.arange(5, 15)[None]
    torch.testing.assert_close(found.eval()(ids).logits, model(ids).logits, rtol=0, atol=0)


def test_persistent_buffers_are_those_that_a_state_holds():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    model.register_buffer("kept", torch.ones(1))
    model.register_buffer("passing", torch.ones(1), persistent=False)
    model[0].register_buffer("passing", torch.ones(1), persistent=False)
    named = dict(model.named_buffers())
    assert list(persistent_buffers(model)) == [name for name in named if name in model.state_dict()]
