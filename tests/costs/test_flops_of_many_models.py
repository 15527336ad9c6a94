"""FLOPs of many kinds of models by the formulas of `flops`, beside what torch's own counter finds in the same pass."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    DebertaConfig,
    DebertaForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from glue_sparse.benchmarks.accumulation import GPT, LLAMA, SMALL, T5
from glue_sparse.core.batches import Batch
from glue_sparse.costs.flops import forward_flops
from networks import bert, distilbert, roberta

RELATIVE: dict[str, Any] = {**SMALL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}
VIT: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip


class Recurrent(nn.Module):
    """An LSTM of two layers and both directions, on embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.out = nn.Embedding(50, 8), nn.Linear(12, 2)
        self.lstm = nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.out(self.lstm(self.emb(input_ids))[0].mean(1))


class Queries(nn.Module):
    """A part of a parameter is itself the input of a module, as learned queries are."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 4, 16))
        self.emb, self.cross = nn.Embedding(50, 16), nn.Linear(16, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), 2)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.encoder(self.emb(input_ids) + (self.cross(self.queries[:, 1:]) @ self.queries.mT).mean())


def tokens(**more: Tensor) -> Batch:
    return {"input_ids": torch.arange(2, 26).view(3, 8), **more}


def images(size: int) -> Batch:
    return {"pixel_values": torch.zeros(3, 3, size, size)}


MODELS: dict[str, Any] = {
    "BERT": lambda: (bert(), tokens()),
    "BERT, masked words": lambda: (BertForMaskedLM(BertConfig(**SMALL)), tokens()),
    "RoBERTa": lambda: (roberta(), tokens()),
    "DistilBERT": lambda: (distilbert(), tokens()),
    "ELECTRA": lambda: (ElectraForSequenceClassification(ElectraConfig(**SMALL, embedding_size=8)), tokens()),
    "ALBERT": lambda: (AlbertForSequenceClassification(AlbertConfig(**SMALL, embedding_size=8)), tokens()),
    "DeBERTa": lambda: (DebertaForSequenceClassification(DebertaConfig(**RELATIVE)), tokens()),
    "DeBERTa v2": lambda: (DebertaV2ForSequenceClassification(DebertaV2Config(**RELATIVE)), tokens()),
    "XLNet": lambda: (
        XLNetForSequenceClassification(XLNetConfig(vocab_size=50, d_model=16, n_layer=1, n_head=2, d_inner=24)),
        tokens(),
    ),
    "GPT-2": lambda: (GPT2LMHeadModel(GPT2Config(**GPT)), tokens()),
    "Llama": lambda: (LlamaForCausalLM(LlamaConfig(**LLAMA, num_key_value_heads=1)), tokens()),
    "T5": lambda: (T5ForConditionalGeneration(T5Config(**T5)), tokens(labels=torch.ones(3, 4, dtype=torch.long))),
    "ViT": lambda: (ViTForImageClassification(ViTConfig(**VIT)), images(16)),
    "ResNet": lambda: (
        ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])), images(32),
    ),
    "torch's encoder": lambda: (Queries(), tokens()),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_the_total_is_that_of_torch(name: str):
    model, batch = MODELS[name]()
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not know the fused kernel of a whole layer
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.eval()(**batch)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    model.train().requires_grad_(True)
    forward = forward_flops(model, batch)
    assert forward.dense * 3 == pytest.approx(counter.get_total_flops(), rel=1e-12)
    assert all(p.requires_grad for p in model.parameters())


def test_recurrent_layers_are_more_than_torch_sees():
    """Its counter knows no kernel of an LSTM: what is missing there are four gates of each layer and direction."""
    model, batch = Recurrent(), tokens()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(**batch)
    gates = sum(p.numel() for name, p in model.lstm.named_parameters() if "weight" in name)
    seen = counter.get_total_flops()
    assert forward_flops(model, batch).dense * 3 == pytest.approx(2 * gates * 3 * 8 + 2 * 12 * 2 * 3)
    assert seen in (2 * 12 * 2 * 3, 2 * gates * 3 * 8 + 2 * 12 * 2 * 3)


def test_experts_count_for_the_tokens_they_are_given():
    """Torch's counter knows no grouped product, but sees a loop over experts: the same products, token by token."""
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(**LLAMA, num_key_value_heads=1, num_local_experts=4))
    model.config._experts_implementation = "eager"
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(**tokens())
    assert forward_flops(model, tokens()).dense * 3 == pytest.approx(counter.get_total_flops(), rel=1e-12)
