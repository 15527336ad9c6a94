"""Llama in three small sizes, by name: architectures without weights (Touvron et al., 2023, arXiv 2302.13971)."""

from typing import Any

from transformers import LlamaConfig

SIZES: dict[str, tuple[int, int, int]] = {
    "llama_tiny": (4, 192, 512),
    "llama_mini": (6, 384, 1024),
    "llama_small": (12, 768, 2048),
}
"""Name -> layers, width and that of the feed-forward part; a head has 32 units in the first two, else 64."""

PAD, END = 0, 1
"""Numbers of the two special tokens."""


def config_of(model: str, **options: Any) -> LlamaConfig:
    """Configuration of a member, with tied embeddings; `options`, such as `vocab_size`, win over its own."""
    layers, width, inner = SIZES[model]
    sizes: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // (32 if width < 768 else 64),
        "intermediate_size": inner,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "pad_token_id": PAD,
        "bos_token_id": END,
        "eos_token_id": END,
    }
    return LlamaConfig(**{**sizes, **options})
