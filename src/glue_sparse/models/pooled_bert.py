"""BERT as a classifier of pooled states: the mean over tokens or the first one, without the pooler's own layer.

`save_pretrained` puts this file beside the weights, so that others load them with `trust_remote_code=True` alone; it
imports nothing of this library.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, BertConfig, BertModel
from transformers import BertForSequenceClassification as Classifier

POOLINGS = ("mean", "cls")


class PooledBertConfig(BertConfig):
    """BERT's, with `classifier_pooling`. Its type has a name of its own: as a plain BERT, the head would read a pooler
    that is not there, whose weights would start random."""

    model_type = "pooled_bert"

    def __init__(self, classifier_pooling: str = POOLINGS[0], **kwargs: Any):
        self.classifier_pooling = classifier_pooling
        super().__init__(**kwargs)


class _Pooled(nn.Module):
    """What stands in the pooler's place; it has no weights.

    Args:
        how: `mean` over the tokens that are no padding, as sentence encoders are trained (Reimers and Gurevych, 2019,
            section 3), or `cls`, the state of the first token.
    """

    def __init__(self, how: str):
        super().__init__()
        self.how = how
        self.attention_mask: Tensor | None = None
        """Of the batch that is under way, [batch, tokens]; none where every token counts."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[batch, tokens, hidden] -> [batch, hidden]."""
        if self.how == "cls":
            return hidden_states[:, 0]
        mask, self.attention_mask = self.attention_mask, None
        if mask is None or mask.dim() != 2:
            return hidden_states.mean(1)
        share = mask / mask.sum(1, keepdim=True).clamp(min=1)
        return (hidden_states * share.unsqueeze(2).to(hidden_states.dtype)).sum(1)


class PooledBertModel(BertModel):
    """The body alone, for what looks at its weights."""

    config_class = PooledBertConfig


class PooledBertForSequenceClassification(Classifier):
    """BERT whose head reads `config.classifier_pooling` of the last states in place of the pooler's output.

    A checkpoint that was trained with mean pooling has a pooler that never learnt to fit; this leaves it out. Weights
    have the names of BertForSequenceClassification, but for the pooler's, which are not there.

    Args:
        config: `classifier_pooling` of it is `mean` or `cls`.
    """

    config_class = PooledBertConfig

    def __init__(self, config: PooledBertConfig):
        super().__init__(config)
        if config.classifier_pooling not in POOLINGS:
            raise ValueError(f"`pooling` is one of {', '.join(POOLINGS)}, not {config.classifier_pooling}")
        self.bert.add_module("pooler", _Pooled(config.classifier_pooling))
        self.bert.register_forward_pre_hook(_hand_on_mask, with_kwargs=True)


def _hand_on_mask(bert: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A pooler is told the states alone; the mean needs to know which are padding."""
    mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
    bert.pooler.attention_mask = mask if isinstance(mask, torch.Tensor) else None  # pyright: ignore


AutoConfig.register(PooledBertConfig.model_type, PooledBertConfig, exist_ok=True)
AutoModel.register(PooledBertConfig, PooledBertModel, exist_ok=True)
AutoModelForSequenceClassification.register(PooledBertConfig, PooledBertForSequenceClassification, exist_ok=True)
PooledBertConfig.register_for_auto_class()
PooledBertForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
