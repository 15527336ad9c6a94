"""BERT in five sizes, by name: architectures without weights (Turc et al., 2019, arXiv 1908.08962)."""

from typing import Any

from transformers import BertConfig

SIZES: dict[str, tuple[int, int]] = {
    "bert_tiny": (2, 128),
    "bert_mini": (4, 256),
    "bert_small": (4, 512),
    "bert_medium": (8, 512),
    "bert_base": (12, 768),
}
"""Name -> layers and width; the feed-forward part is four times as wide, a head has 64 units."""

_WITHOUT_DROPOUT = ("bert_tiny", "bert_mini", "bert_small")


def config_of(model: str, **options: Any) -> BertConfig:
    """Configuration of a member; `options`, such as `vocab_size`, win over its own.

    Dropout is 0.1 in the models larger than Small alone (Dietrich et al., 2021, arXiv 2108.06277).
    """
    layers, width = SIZES[model]
    dropout = 0.0 if model in _WITHOUT_DROPOUT else 0.1
    sizes: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 512,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }
    return BertConfig(**{**sizes, **options})
