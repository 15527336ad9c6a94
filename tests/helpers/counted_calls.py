"""One rank of tests/scaling/test_counted_calls.py: counts what FSDP2 hands to collectives. Run by torchrun."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

SHAPE: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 12, "intermediate_size": 31, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
"""Rows that two ranks cannot share out evenly."""
RANK = 3
CASES: dict[str, dict[str, Any]] = {
    "full": {}, "full, layers stay": {"reshards": False}, "full, bfloat16": {"half": True},
    "frozen": {"frozen": True}, "lora": {"rank": RANK}, "lora, two micro-steps": {"rank": RANK, "micro_steps": 2},
}  # fmt: skip
_OPERATIONS = {"_allgather_base_": "all_gather", "_reduce_scatter_base_": "reduce_scatter", "all_reduce": "all_reduce"}
_INPUTS = {"_allgather_base_": 1, "_reduce_scatter_base_": 1, "all_reduce": 0}


class Counted(TorchDispatchMode):
    """Calls of collectives and bytes of their inputs, by operation; an operation that is not known is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.handed: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if DTensor in types:  # which goes on to plain tensors, and to collectives between them
            return NotImplemented
        space, _, name = func._schema.name.partition("::")
        if space in ("c10d", "_c10d_functional") and name.strip("_").partition("_")[0] not in ("wait", "wrap"):
            self.handed[_OPERATIONS[name]] += args[_INPUTS[name]].nbytes
            self.handed[f"{_OPERATIONS[name]} calls"] += 1
        return func(*args, **(kwargs or {}))


def adapt(layer: nn.Module, rank: int) -> None:
    """Put LoRA's two matrices beside each linear map of a layer, as peft does, and freeze the rest."""
    layer.requires_grad_(False)
    for linear in [module for module in layer.modules() if isinstance(module, nn.Linear)]:
        inner = nn.Linear(linear.in_features, rank, bias=False), nn.Linear(rank, linear.out_features, bias=False)
        linear.adapter = nn.Sequential(*inner)
        linear.register_forward_hook(lambda module, args, output: output + getattr(module, "adapter")(*args))  # noqa: B009


def network(rank: int, frozen: bool, half: bool, reshards: bool) -> Any:
    """A tiny Llama, each of its layers and the root a group."""
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**SHAPE, use_cache=False))
    layers = model.model.layers
    if rank or frozen:
        model.requires_grad_(False)
    for layer in layers if rank else ():
        adapt(layer, rank)
    if frozen:  # and yet with a backward pass, as where values train apart from the weights
        model.model.embed_tokens.register_forward_hook(lambda module, args, output: output.requires_grad_())
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if half else MixedPrecisionPolicy()
    for layer in layers:
        fully_shard(layer, reshard_after_forward=reshards, mp_policy=policy)
    return fully_shard(model, mp_policy=policy)


def step(model: Any, micro_steps: int, clips: bool) -> dict[str, int]:
    """Bytes and calls of one step by operation, after one that does not count, in which FSDP2 looks around."""
    ids = torch.arange(10).view(2, 5)
    for _ in range(2):
        with Counted() as counted:
            for _ in range(micro_steps):
                model(input_ids=ids).logits.float().sum().backward()
            if clips:
                nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
    return dict(counted.handed)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    found = {}
    for name in sys.argv[2:]:
        told = {"rank": 0, "frozen": False, "half": False, "reshards": True, "micro_steps": 1, **CASES[name]}
        micro_steps = told.pop("micro_steps")
        found[name] = step(network(**told), micro_steps, clips=not told["frozen"])
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))
    dist.destroy_process_group()
