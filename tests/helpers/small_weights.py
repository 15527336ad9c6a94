"""Models of several kinds, and their small weights by the plain formula."""

import re
from typing import Any

import numpy as np
from transformers import ViTConfig, ViTForImageClassification

from networks import bert, gpt2


def vit() -> Any:
    """A vision transformer with 16 hidden units and random weights."""
    config: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return ViTForImageClassification(ViTConfig(**config, intermediate_size=32, image_size=16, patch_size=8))


KINDS_OF_MODELS = [(bert, r"\.layer\."), (gpt2, r"\.h\."), (vit, r"\.layers\.")]
"""A model, and what the names of the parameters in its layers have."""


def small_by_formula(model: Any, pattern: str, tau: float) -> tuple[int, int]:
    """Of all two-dimensional weights of a model whose names have a pattern."""
    named = [(name, p) for name, p in model.named_parameters() if p.dim() == 2 and re.search(pattern, name)]
    everything = np.concatenate([p.detach().numpy().ravel() for _, p in named]).astype(np.float64)
    return int((np.abs(everything) < tau).sum()), everything.size
