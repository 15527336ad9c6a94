"""Padding that changes nothing: what pads, on which side, and how the network knows it."""

import inspect
import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from glue_sparse.core.batches import undisturbed
from glue_sparse.models.positions import counts_from_padding

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""How far outputs may differ, as a share of the largest."""


def follow_tokenizer(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Let the network know which token pads: the tokenizer makes the batches, so its word counts.

    Heads that look for the last token of a text find it by `config.pad_token_id`; the row of `padding_idx` in the
    table of words gets no gradient, which a token of the text must get. Where positions are numbered by the padding
    index, as in RoBERTa, the configuration stays as it is, since another index would be other positions.
    """
    pad: Any = tokenizer.pad_token_id
    config = network.config
    known, table = config.pad_token_id, network.get_input_embeddings()
    if isinstance(table, nn.Embedding):
        for module in network.modules():
            if isinstance(module, nn.Embedding) and module.weight is table.weight and module.padding_idx is not None:
                module.padding_idx = pad if pad < module.num_embeddings else None
    if known == pad or (known is not None and counts_from_padding(network)):
        return
    if known is not None:
        logger.warning("the tokenizer of %s pads with %s, token %d, which its config.pad_token_id, %d, now follows",
                       model, tokenizer.pad_token, pad, known)  # fmt: skip
    config.pad_token_id = config.get_text_config().pad_token_id = pad


def choose_side(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Let the tokenizer pad on the side where padding does not change what the network says of a text.

    Decided by what the network gives for a short text, alone and beside a longer one: a head that reads the last place
    (XLNet) needs its padding on the left, absolute positions need it on the right. A warning tells where the side is
    changed, or where scores depend on the padding on either.

    Raises:
        ValueError: the network cannot read what the tokenizer gives.
    """
    texts, own = ["Yes.", "The second one is longer, so that the first is padded."], tokenizer.padding_side
    try:
        alone = _outputs(network, tokenizer, texts[:1])
        for side in (own, "left" if own == "right" else "right"):
            tokenizer.padding_side = side
            padded = _outputs(network, tokenizer, texts)
            if (alone - padded).abs().max() <= TOLERANCE[network.dtype] * alone.abs().max():
                break
        else:
            tokenizer.padding_side = own
            logger.warning("what %s says of a text changes with its padding, so scores depend on "
                           "per_device_eval_batch_size; 1 pads nothing", model)  # fmt: skip
    except (ValueError, IndexError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"model {model} cannot read what its tokenizer, a {type(tokenizer).__name__}, gives: "
                         f"{reason}") from error  # fmt: skip
    if tokenizer.padding_side != own:
        logger.warning("batches of %s are padded on the %s, since padding on the %s changes what it says of a text",
                       model, tokenizer.padding_side, own)  # fmt: skip


def _outputs(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Tensor:
    """[outputs] for the first of some texts."""
    encoded: Any = tokenizer(texts, return_attention_mask=True)
    batch = tokenizer.pad(encoded, return_tensors="pt")
    taken = inspect.signature(network.forward).parameters
    with undisturbed(network), torch.no_grad():
        return network(**{key: value for key, value in batch.items() if key in taken}).logits[0].float()
