"""Batches of token rows, and what is kept of a model's outputs for them: sums of losses, and no logits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import EvalPrediction

from glue_sparse.core.batches import IGNORED

METRICS = ("lm_loss", "perplexity", "token_accuracy")
"""Mean loss in nats of the tokens that are scored, e to it, and the share of them that had the largest logit."""


@dataclass(frozen=True)
class Collator:
    """Rows as [batch, tokens] tensors, filled up on the right.

    Packed rows, which have `position_ids`, get no attention mask: by their positions models of transformers see
    which tokens belong together, and what fills a row up comes after all that is read.
    """

    pad: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids = [row["input_ids"] for row in rows]
        labels = [row.get("labels", row["input_ids"]) for row in rows]
        batch = {"input_ids": _padded(ids, self.pad), "labels": _padded(labels, IGNORED)}
        if "position_ids" in rows[0]:
            return {**batch, "position_ids": _padded([row["position_ids"] for row in rows], 0)}
        return {**batch, "attention_mask": _padded([[1] * len(row) for row in ids], 0)}


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    return pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True, padding_value=fill)


def summed(outputs: Any, labels: Tensor) -> Tensor:
    """[examples, 3] sum of losses in nats, number of tokens scored, and how many had the largest logit.

    Row by row and in float32, so that no copy of all logits is made.

    Args:
        outputs: [examples, tokens, words] logits, or a tuple that begins with them.
        labels: [examples, tokens], each the token that the place before it predicts.
    """
    logits: Tensor = outputs[0] if isinstance(outputs, tuple | list) else outputs
    found = []
    for row, wanted in zip(logits, labels, strict=True):
        counted = wanted[1:] != IGNORED
        told, words = row[:-1][counted].float(), wanted[1:][counted]
        loss = F.cross_entropy(told, words, reduction="sum")
        found.append(torch.stack([loss, counted.sum().float(), (told.argmax(-1) == words).sum().float()]))
    return torch.stack(found)


def metrics(evaluated: EvalPrediction) -> dict[str, float]:
    """`METRICS` over the tokens of all examples, from what `summed` gives."""
    loss, tokens, right = np.asarray(evaluated.predictions, dtype=np.float64).sum(axis=0)
    mean = loss / max(tokens, 1)
    with np.errstate(over="ignore"):
        return dict(zip(METRICS, (mean, float(np.exp(mean)), right / max(tokens, 1)), strict=True))
