"""Small networks whose checkpoints hold other tensors than they have in memory, with random weights."""

from typing import Any

import torch
from transformers import (
    GteConfig,
    GteModel,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from decoders import tokenizer

_SIZES: dict[str, Any] = {
    "vocab_size": len(tokenizer()), "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 2,
}  # fmt: skip
_CAUSAL: dict[str, Any] = {**_SIZES, "num_key_value_heads": 1, "num_experts_per_tok": 2, "eos_token_id": 1}
NETWORKS: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "mixtral": (MixtralForCausalLM, MixtralConfig(**_CAUSAL, num_local_experts=3, pad_token_id=0)),
    "qwen2_moe": (Qwen2MoeForCausalLM, Qwen2MoeConfig(
        **_CAUSAL, num_experts=3, moe_intermediate_size=8, shared_expert_intermediate_size=8, pad_token_id=0)),
    "gte": (GteModel, GteConfig(**_SIZES, pad_token_id=0)),
}  # fmt: skip
"""Mixtures of experts, one tensor of many; and three projections that the checkpoint holds as one."""


def network(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """One of them."""
    kind, config = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
        for parameter in model.parameters():  # also those that start as ones or zeros
            parameter.data = (torch.rand(parameter.shape) - 0.5).to(dtype)
    return model.eval()


def states(model: Any) -> torch.Tensor:
    """What it gives for a fixed sequence."""
    with torch.no_grad():
        return model(torch.arange(5, 15)[None])[0]
