"""FLOPs counted by hand, by torch's counter and by RigL's paper, against those of `flops`."""

import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_sequence
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    MixtralConfig,
    MixtralForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
)

from glue_sparse.core.active import attach
from glue_sparse.core.options import Inactive
from glue_sparse.core.parametrization import held_tensors
from glue_sparse.costs.flops import forward_flops, report
from glue_sparse.costs.formulas import Forward, training_flops
from networks import bert, collate, examples, gpt2


def mask_a_share(model: nn.Module, names: list[str], share: float = 0.1, inactive: Inactive = "zero") -> None:
    """Attach masks whose first entries are active, the given share of each tensor rounded down."""
    masks = {}
    for name in names:
        masks[name] = torch.zeros_like(model.get_parameter(name), dtype=torch.bool)
        masks[name].view(-1)[: int(share * masks[name].numel())] = True
    attach(model, masks, inactive)


def matrices(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.dim() > 1 and "embeddings" not in name]


class ConvNet(nn.Module):
    """Stride, padding, groups, a shortcut and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4)
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.up = nn.ConvTranspose2d(16, 6, 2, stride=2, groups=2)
        self.head = nn.Linear(6, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(images)).relu()
        x = (self.grouped(x) + self.shortcut(x)).relu()
        return self.head(self.up(x).mean((2, 3)))


BY_HAND = {
    "first.weight": 2 * (8 * 3 * 9) * (16 * 16),  # 32 x 32 images, stride 2
    "grouped.weight": 2 * (16 * 2 * 9) * (8 * 8),  # 8 / 4 channels go into each
    "shortcut.weight": 2 * (16 * 8) * (8 * 8),
    "up.weight": 2 * (16 * 3 * 4) * (8 * 8),  # applied at each place of its input
    "head.weight": 2 * (10 * 6),
}
IMAGES = {"images": torch.zeros(5, 3, 32, 32)}


def test_convolutions_by_hand():
    forward = forward_flops(ConvNet(), IMAGES)
    assert forward.by_tensor == BY_HAND
    assert forward.dense == forward.sparse == forward.trained == sum(BY_HAND.values())


def test_density_counts_where_inactive_entries_are_zero():
    model = ConvNet()
    mask_a_share(model, ["grouped.weight", "head.weight", "norm.weight"], 0.25)
    forward = forward_flops(model, IMAGES)
    total = sum(BY_HAND.values())
    left = total - 0.75 * (BY_HAND["grouped.weight"] + BY_HAND["head.weight"])
    assert (forward.dense, forward.by_tensor) == (total, BY_HAND)
    assert forward.sparse == forward.trained == left


def test_frozen_entries_compute_but_do_not_train():
    model = ConvNet()
    mask_a_share(model, ["grouped.weight"], 0.25, "frozen")
    model.first.requires_grad_(False)
    forward = forward_flops(model, IMAGES)
    total = sum(BY_HAND.values())
    assert forward.sparse == forward.dense == total
    assert forward.trained == total - BY_HAND["first.weight"] - 0.75 * BY_HAND["grouped.weight"]
    assert training_flops("frozen", forward) == 2 * total + forward.trained


@pytest.mark.parametrize("share", [None, 0.1])
def test_dense_total_is_that_of_torch(share: float | None):
    model = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(80, 7))
    x = torch.zeros(6, 4, 10)
    with FlopCounterMode(display=False) as counter:
        model(x)
    if share:
        mask_a_share(model, ["0.weight", "3.weight"], share)
    forward = forward_flops(model, {"input": x})
    assert forward.dense == counter.get_total_flops() / 6


def test_linear_over_tokens_and_another_number_of_examples():
    layer, x = nn.Linear(8, 3), torch.zeros(4, 7, 8)
    assert forward_flops(layer, {"input": x}).dense == 7 * 2 * 8 * 3
    assert forward_flops(layer, {"input": x}, num_examples=28).dense == 2 * 8 * 3
    assert forward_flops(layer, {"input": torch.zeros(8)}, num_examples=1).dense == 2 * 8 * 3


@pytest.mark.parametrize("kind, gates", [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers(kind: Any, gates: int):
    model = kind(8, 16, num_layers=2, bidirectional=True, batch_first=True)
    mask_a_share(model, ["weight_hh_l0"], 0.5)
    forward = forward_flops(model, {"input": torch.zeros(3, 5, 8)})
    inputs, hidden, second = 2 * gates * 16 * 8, 2 * gates * 16 * 16, 2 * gates * 16 * 32
    assert forward.dense == 5 * 2 * (inputs + hidden + second + hidden)
    assert forward.sparse == forward.dense - 5 * hidden / 2
    assert forward.by_tensor["weight_ih_l1_reverse"] == 5 * second


def test_packed_sequences_projections_and_cells():
    packed = pack_sequence([torch.zeros(5, 8), torch.zeros(3, 8)])
    forward = forward_flops(nn.LSTM(8, 16, proj_size=4), {"input": packed}, num_examples=2)
    assert forward.dense == (5 + 3) / 2 * 2 * (64 * 8 + 64 * 4 + 4 * 16)
    assert forward_flops(nn.GRUCell(8, 16), {"input": torch.zeros(3, 8)}).dense == 2 * 48 * (8 + 16)


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention(need_weights: bool):
    model = nn.MultiheadAttention(16, 4, batch_first=True)
    mask_a_share(model, ["in_proj_weight", "out_proj.weight"], 0.125)
    x, memory = torch.zeros(3, 5, 16), torch.zeros(3, 7, 16)
    forward = forward_flops(model, {"query": x, "key": memory, "value": memory, "need_weights": need_weights})
    products = 2 * (2 * 5 * 7 * 16)  # scores, and their product with the values: all heads together have width 16
    weights = {"in_proj_weight": 2 * 16 * 16 * (5 + 7 + 7), "out_proj.weight": 2 * 16 * 16 * 5}
    assert forward.by_tensor == weights
    assert forward.dense == sum(weights.values()) + products
    assert forward.sparse == forward.trained == sum(weights.values()) / 8 + products


def test_attention_with_other_widths_and_inside_an_encoder():
    model = nn.MultiheadAttention(16, 4, kdim=6, vdim=10, batch_first=True)
    batch = {"query": torch.zeros(3, 5, 16), "key": torch.zeros(3, 7, 6), "value": torch.zeros(3, 7, 10)}
    forward = forward_flops(model, batch)
    assert forward.by_tensor["k_proj_weight"] == 2 * 16 * 6 * 7
    assert forward.dense == 2 * 16 * (16 * 5 + 6 * 7 + 10 * 7 + 16 * 5) + 2 * 2 * 5 * 7 * 16
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2)
    one = 2 * 5 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 2 * 5 * 5 * 16
    fast = torch.backends.mha.get_fastpath_enabled()
    assert forward_flops(encoder, {"src": torch.zeros(3, 5, 16)}).dense == 2 * one
    assert torch.backends.mha.get_fastpath_enabled() == fast


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert_by_hand(tiny_bert: str, attention: str):
    model = BertModel.from_pretrained(tiny_bert, attn_implementation=attention, add_pooling_layer=False)
    names, tokens = matrices(model), 6
    batch = {"input_ids": torch.ones(4, tokens, dtype=torch.long)}
    weights = 2 * 2 * tokens * (4 * 32 * 32 + 2 * 32 * 64)  # two layers, 2 FLOPs for each weight and token
    products = 2 * 2 * (2 * tokens * tokens * 32)
    plain = forward_flops(model, batch)
    assert set(plain.by_tensor) == set(names)
    assert plain.dense == plain.sparse == plain.trained == weights + products
    mask_a_share(model, names)
    masked = forward_flops(model, batch)
    kept = 2 * 2 * tokens * (4 * 102 + 2 * 204)  # a tenth of 1024 and of 2048 entries, rounded down
    assert (masked.dense, masked.by_tensor) == (plain.dense, plain.by_tensor)
    assert masked.sparse == masked.trained == pytest.approx(kept + products)


def test_tied_tensors_count_where_they_are_applied():
    model = BertForMaskedLM(BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                       intermediate_size=32))  # fmt: skip
    name = "bert.embeddings.word_embeddings.weight"
    batch = {"input_ids": torch.ones(2, 5, dtype=torch.long)}
    assert forward_flops(model, batch).by_tensor[name] == 5 * 2 * 50 * 16
    mask_a_share(model, [name], 0.5)
    masked = forward_flops(model, batch)
    assert [name for name, _ in held_tensors(model)] == [name]
    assert masked.sparse == masked.dense - 0.5 * masked.by_tensor[name]
    layer = nn.Linear(4, 4)
    assert forward_flops(nn.Sequential(layer, layer), {"input": torch.zeros(2, 4)}).by_tensor == {"0.weight": 64}


def test_transposed_linear_layers_and_weight_norm():
    forward = forward_flops(gpt2(), {"input_ids": torch.ones(2, 5, dtype=torch.long)})
    assert forward.by_tensor["transformer.h.0.attn.c_attn.weight"] == 5 * 2 * 16 * 48
    normed = nn.Sequential(weight_norm(nn.Linear(6, 4)))
    assert forward_flops(normed, {"input": torch.zeros(2, 6)}).by_tensor == {"0.weight": 48}


def test_fused_experts():
    sizes: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32}
    model = MixtralForCausalLM(MixtralConfig(**sizes, **heads, num_local_experts=4, num_experts_per_tok=2))
    experts = "model.layers.0.mlp.experts"
    mask_a_share(model, [f"{experts}.down_proj"], 0.5)
    forward = forward_flops(model, {"input_ids": torch.ones(2, 5, dtype=torch.long)})
    down, up = 5 * 2 * (2 * 16 * 32), 5 * 2 * (2 * 16 * 64)  # two experts for each of five tokens
    attention = 5 * 2 * (2 * 16 * 16 + 2 * 16 * 8)
    products = 2 * 2 * 5 * 5 * 16 + 5 * 2 * 16 * 4  # attention, and the router, which is not an nn.Linear
    assert (forward.by_tensor[f"{experts}.down_proj"], forward.by_tensor[f"{experts}.gate_up_proj"]) == (down, up)
    assert forward.dense == down + up + attention + products + 5 * 2 * 16 * 50
    assert forward.sparse == forward.dense - down / 2


def test_nothing_is_left_behind():
    model, batch = bert(), collate(examples(4))
    mask_a_share(model, matrices(model))
    model.bert.encoder.eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    forward_flops(model, batch)
    assert torch.equal(torch.random.get_rng_state(), state) and torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(IndexError):  # in the middle of the pass
        forward_flops(model, {"input_ids": torch.full((1, 4), 99)})
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_cannot_be_counted(caplog: pytest.LogCaptureFixture):
    with pytest.raises(ValueError, match="at least one"):
        forward_flops(nn.Linear(2, 2), {"input": torch.zeros(0, 2)})
    with pytest.raises(ValueError, match="Embedding computes no products"):
        forward_flops(nn.Embedding(4, 2), {"input": torch.zeros(3, dtype=torch.long)})
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "other": nn.Bilinear(2, 2, 2)})
    model.forward = lambda input: model["used"](input)
    mask_a_share(model, ["other.weight", "used.weight"], 0.5)
    with caplog.at_level(logging.WARNING):
        assert forward_flops(model, {"input": torch.zeros(1, 2)}).sparse == 4
    assert "used other.weight: counted as dense" in caplog.text


def shares(sparse: float, update_every: int = 100) -> dict[str, float]:
    """Training FLOPs over those of the dense model, for each rule."""
    forward = Forward(1.0, sparse, sparse, {})
    rules = ("dense", "static", "snfs", "rigl")
    return {rule: report(forward, rule, 1, update_every)["training_share"] for rule in rules}


def test_training_formulas_by_hand():
    found = shares(0.2)
    assert found["dense"] == 1
    assert found["static"] == pytest.approx(0.2)
    assert found["snfs"] == pytest.approx(1.4 / 3)
    assert found["rigl"] == pytest.approx((60 + 0.4 + 1) / 101 / 3)


@pytest.mark.parametrize("sparse, rule, published", [(0.23, "static", 0.23), (0.23, "rigl", 0.23),
                                                     (0.42, "rigl", 0.42), (0.42, "snfs", 0.61)])  # fmt: skip
def test_published_shares_at_80_percent(sparse: float, rule: str, published: float):
    """RigL, table of ResNet-50 on ImageNet, uniform (f_S = 0.23) and ERK (0.42)."""
    assert round(shares(sparse)[rule], 2) == published


def test_published_shares_at_90_percent():
    """The table's f_S = 0.24 (ERK) is rounded: 0.2435 gives the 1.23 that the authors' README prints for 5 x RigL."""
    found = shares(0.2435)
    assert round(5 * found["rigl"], 2) == 1.23
    assert [round(x, 2) for x in (0.2435, found["snfs"], found["rigl"])] == [0.24, 0.50, 0.25]


def test_published_flops_of_resnet_50():
    classes: dict[str, Any] = {"num_labels": 1000}
    model = ResNetForImageClassification(ResNetConfig(**classes))
    forward = forward_flops(model, {"pixel_values": torch.zeros(1, 3, 224, 224)})
    assert f"{forward.dense:.1e}" == "8.2e+09"
    found = report(forward, "dense", 32_000 * 4096)  # steps and batch of the paper
    assert found["training_flops"] == pytest.approx(3.2e18, rel=0.02)
    first = forward.by_tensor["resnet.embedder.embedder.convolution.weight"]
    for density, published in ((0.2, 0.23), (0.1, 0.13), (0.05, 0.08)):  # the authors count norms and biases too
        assert (first + density * (forward.dense - first)) / forward.dense == pytest.approx(published, abs=0.007)


def test_report_and_its_errors():
    forward = Forward(100.0, 20.0, 30.0, {})
    assert report(forward, "frozen", 10) == {
        "forward_flops_dense": 100,
        "forward_flops": 20,
        "training_flops_per_example": 230,
        "training_flops": 2300,
        "forward_share": 0.2,
        "training_share": 230 / 300,
    }
    with pytest.raises(ValueError, match="at least 1 step, not None"):
        training_flops("rigl", forward)
    with pytest.raises(ValueError, match="no training FLOPs for 'set'; choose one of dense, static"):
        training_flops("set", forward)  # pyright: ignore[reportArgumentType]
