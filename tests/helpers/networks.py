"""Small networks that the tests share."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

TINY = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


def bert(num_labels: int = 2, seed: int = 0, **changes: Any) -> BertForSequenceClassification:
    """A BERT classifier with 16 hidden units and random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertForSequenceClassification(BertConfig(**{**TINY, "num_labels": num_labels, **changes}))


def roberta(num_labels: int = 2) -> Any:
    """A RoBERTa classifier; its head has two layers."""
    config: dict[str, Any] = {**TINY, "pad_token_id": 0, "num_labels": num_labels}
    return RobertaForSequenceClassification(RobertaConfig(**config))


def distilbert(num_labels: int = 2) -> Any:
    """A DistilBERT classifier; its head has two layers."""
    config: dict[str, Any] = {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    return DistilBertForSequenceClassification(DistilBertConfig(**{**config, "num_labels": num_labels}))


def gpt2(num_labels: int = 2) -> Any:
    """A decoder whose linear layers store their weights transposed."""
    config: dict[str, Any] = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return GPT2ForSequenceClassification(GPT2Config(**{**config, "pad_token_id": 0, "num_labels": num_labels}))


def llama(num_labels: int = 2) -> Any:
    """A decoder whose norms have no per-example rule."""
    config: dict[str, Any] = {**TINY, "pad_token_id": 0, "num_labels": num_labels}
    return LlamaForSequenceClassification(LlamaConfig(**config))


def cast(model: nn.Module, dtype: torch.dtype) -> Any:
    """The model with its floating-point tensors in another type."""
    return model.to(dtype)


def examples(count: int, num_labels: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """Token lists of different lengths with labels that depend on the tokens."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        length = int(torch.randint(4, 12, (1,), generator=generator))
        ids = torch.randint(1, 50, (length,), generator=generator)
        rows.append({"input_ids": ids.tolist(), "labels": int(ids.sum()) % num_labels})
    return rows


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad to the longest row."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows])
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([row["labels"] for row in rows])}


class ImageNet(nn.Module):
    """Convolutions (plain, grouped, strided), batch norm and a bare parameter, which has no per-example rule."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False)
        self.scale = nn.Parameter(torch.rand(6, 1, 1))
        self.head = nn.Linear(6, 3)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.second(self.norm(self.first(images)).relu()) * self.scale
        logits = self.head(x.mean((2, 3)))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}
