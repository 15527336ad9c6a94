"""BERT for pre-training whose masked-LM head runs at masked positions only, and where its weights come from."""



from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, PreTrainedTokenizerBase
from transformers.utils.generic import ModelOutput

from glue_sparse.core.batches import IGNORED
from glue_sparse.core.randomness import new_weights
from glue_sparse.models.loading import architecture_of, load_pretrained, new_model
from glue_sparse.models.names import scratch_of
from glue_sparse.models.tokenizers import SpecialIds

OFFLINE = "use `model` bert_mini, or a local folder as `model`"


@dataclass
class PretrainingOutput(ModelOutput):
    """What a step needs, and what scores are made of."""

    loss: Tensor | None = None
    """Masked-LM loss plus next-sentence loss."""
    statistics: Tensor | None = None
    """[n, 5] float32 per example: summed masked-LM loss, masked tokens, how many of them are right, next-sentence loss,
    and whether that is right."""


class BertForPreTraining(transformers.BertForPreTraining):
    """transformers' model of the same name, under which it is saved; what differs is the work and the output.

    The masked-LM head runs at masked positions only, which halves the time of a step of a small model (Dietrich et
    al., 2021, arXiv 2108.06277), and losses and counts of each example are returned instead of logits.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
    ) -> Any:
        """Loss and statistics, equal to those of the stock model; without both labels its logits.

        Args:
            input_ids: [n, length] tokens, as are the next three.
            labels: the tokens to predict, -100 elsewhere; the masked-LM loss is the mean over those of the batch, and 0
                where there are none.
            next_sentence_label: [n], 1 where the second segment is not the continuation of the first.
        """
        if labels is None or next_sentence_label is None:
            return super().forward(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        hidden, pooled = self.bert(
            input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, return_dict=True
        )[:2]
        rows, places = (labels != IGNORED).nonzero(as_tuple=True)
        targets = labels[rows, places]
        logits = self.cls.predictions(hidden[rows, places])
        losses = F.cross_entropy(logits.float(), targets, reduction="none")
        next_logits = self.cls.seq_relationship(pooled)
        next_losses = F.cross_entropy(next_logits.float(), next_sentence_label, reduction="none")
        loss = losses.sum() / max(len(targets), 1) + next_losses.mean()
        with torch.no_grad():
            sums = losses.new_zeros(len(labels), 3)
            right = (logits.argmax(-1) == targets).float()
            sums.index_add_(0, rows, torch.stack([losses, torch.ones_like(losses), right], dim=1))
            next_right = (next_logits.argmax(-1) == next_sentence_label).float()
            statistics = torch.cat([sums, next_losses[:, None], next_right[:, None]], dim=1)
        return PretrainingOutput(loss=loss, statistics=statistics)  # pyright: ignore[reportArgumentType]


def configuration(name: str) -> BertConfig:
    """The configuration of a model that can be pre-trained, with or without a seed in its name.

    Raises:
        ValueError: not to be had, or not a BERT.
    """
    architecture, _ = scratch_of(name)
    config = architecture_of(architecture, OFFLINE)
    if config.model_type != "bert":
        raise ValueError(f"model {architecture} is of type {config.model_type}; masked_lm trains models of type bert")
    assert isinstance(config, BertConfig)
    return config


def load(name: str, tokenizer: PreTrainedTokenizerBase, dtype: str = "float32") -> BertForPreTraining:
    """The model `bert_mini@scratch7`, with the tokenizer's vocabulary, or a pretrained one by hub id or folder.

    Raises:
        ValueError: see `configuration`, or a pretrained model with a smaller vocabulary than the tokenizer's.
    """
    stored = configuration(name).vocab_size
    if scratch_of(name)[1] is None and len(tokenizer) > stored:
        raise ValueError(f"the tokenizer has {len(tokenizer):,} tokens and model {name} {stored:,}: leave `tokenizer` "
                         "out, or give `from_scratch` true")  # fmt: skip
    network, pad = load_base(name, len(tokenizer), dtype), SpecialIds.of(tokenizer).pad
    # not before, so that random weights depend on the size of the vocabulary alone
    network.config.pad_token_id = network.bert.embeddings.word_embeddings.padding_idx = pad
    return network


def load_base(name: str, vocab_size: int | None, dtype: str = "float32") -> BertForPreTraining:
    """As `load`, without a tokenizer; `vocab_size` is for random weights, and by default that of the architecture.

    Raises:
        ValueError: see `load`.
    """
    architecture, seed = scratch_of(name)
    network: Any
    if seed is None:
        network = load_pretrained(BertForPreTraining, name, dtype, OFFLINE)
    else:
        size = {} if vocab_size is None else {"vocab_size": vocab_size}
        config = architecture_of(architecture, OFFLINE, **size)
        network = new_model(BertForPreTraining, config, name, dtype)
        _redraw(network, seed, architecture)
    return network


@torch.no_grad()
def _redraw(network: BertForPreTraining, seed: int, architecture: str) -> None:
    """Matrices from a normal distribution that is cut off at two standard deviations, as in BERT's own code."""
    std = network.config.initializer_range
    with new_weights(seed, architecture):
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Embedding) and module is not network.cls.predictions.decoder:
                drawn = torch.empty(module.weight.shape)
                module.weight.copy_(nn.init.trunc_normal_(drawn, std=std, a=-2 * std, b=2 * std))
                if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                    module.weight[module.padding_idx] = 0
