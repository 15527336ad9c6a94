"""Tokenizers of models, and the numbers of their special tokens."""

from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from glue_sparse.models.names import LLAMAS, is_size, scratch_of
from glue_sparse.models.sources import explained, resolve
from glue_sparse.models.strangers import loaded
from glue_sparse.writing.sentences import sentence

_UNKNOWN = "\u16a0\u16d7"
"""A text, in runes, that hardly a vocabulary has."""


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer; one without a padding token (a decoder's) pads with its end token.

    Args:
        model: hub id, folder, or alias such as `minilm`.
    Raises:
        ValueError: it is not to be had.
    """
    model, _ = scratch_of(model)
    if is_size(model):
        first = "causal_lm" if model in LLAMAS else "masked_lm"
        raise ValueError(f"{model} is an architecture without a tokenizer: pre-train it with `task` {first} first, "
                         "and give the folder of the saved model as `model`")  # fmt: skip
    folder = resolve(model)
    with explained(model, folder):
        tokenizer = loaded(AutoTokenizer, folder)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # transformers builds an empty tokenizer from a folder that holds a configuration alone
        raise ValueError(f"model {model} comes without tokenizer files")
    try:
        tokenizer.tokenize(_UNKNOWN)
    except Exception as error:  # tokenizers raises nothing more special
        raise ValueError(f"the tokenizer of {model} cannot read a text: {sentence(str(error), 90)}") from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"the tokenizer of {model} has neither a padding nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@dataclass(frozen=True)
class SpecialIds:
    """Numbers of the tokens that stand for no text."""

    pad: int
    cls: int
    sep: int
    mask: int

    @classmethod
    def of(cls, tokenizer: Any) -> "SpecialIds":
        """Those of a tokenizer that has all of them."""
        return cls(tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id)
