"""Small language models and texts that the tests share."""

from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from glue_sparse.core.options import Kind
from glue_sparse.models.language_models import LanguageModel

WORDS = (
    "the", "a", "cat", "dog", "bird", "fish", "man", "woman", "sees", "likes", "hates", "runs", "in", "to", "is", "was",
    "not", "good", "bad", "story", ".", ",",
)  # fmt: skip


def text(num_words: int, seed: int = 0) -> str:
    """Random words, each one token of the tiny tokenizer."""
    drawn = torch.randint(len(WORDS), (num_words,), generator=torch.Generator().manual_seed(seed))
    return " ".join(WORDS[index] for index in drawn.tolist())


def language_model(kind: Kind, tokenizer_folder: str) -> LanguageModel:
    """A GPT-2 or BERT with 32 positions, its random weights large enough that each word matters to the others."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    common: dict[str, Any] = {"vocab_size": len(tokenizer), "initializer_range": 0.3}
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "causal":
            network = GPT2LMHeadModel(GPT2Config(**common, n_embd=16, n_layer=2, n_head=2, n_positions=32))
        else:
            network = BertForMaskedLM(BertConfig(**common, **sizes, intermediate_size=32, max_position_embeddings=32))
    return LanguageModel(f"tiny {kind}", network.eval(), tokenizer, kind)


def saved(language: LanguageModel, folder: Any) -> str:
    """The model and its tokenizer as a folder."""
    language.network.save_pretrained(folder)
    language.tokenizer.save_pretrained(folder)
    return str(folder)
