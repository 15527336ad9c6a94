"""Language models of a few thousand weights, their tokenizer and data, for what trains and saves them."""

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from glue_sparse.core.masks import select_in_groups
from glue_sparse.core.params import encoder_matrices

CHAT = """{% for m in messages %}{{ m["role"] }}: {% if m["role"] == "assistant" %}{% generation %}{{ m["content"] }}\
{{ eos_token }}{% endgeneration %}{% else %}{{ m["content"] }}{% endif %}
{% endfor %}"""
MESSAGES = [
    {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"the cat {i}"}]}
    for i in range(32)
]
PREFERENCES = [{"prompt": f"say {i} ", "chosen": f"the cat {i}", "rejected": "a dog"} for i in range(32)]


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and a few merges of them."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<eos>"]
    trainer = trainers.BpeTrainer(vocab_size=270, special_tokens=special, initial_alphabet=alphabet)
    made.train_from_iterator(["the cat sat on the mat. "], trainer)
    found = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")
    found.chat_template = CHAT
    return found


def causal(tied: bool = True, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> Any:
    """A Llama with random weights."""
    config: dict[str, Any] = {
        "vocab_size": len(tokenizer()), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": tied, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 1,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**{**config, **changes}))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)  # and no buffers, which stay as they are where a folder is loaded
    return model


def gpt2_causal() -> Any:
    """A tied decoder whose linear layers store their weights transposed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer()), n_embd=32, n_layer=2, n_head=2, n_positions=64))


def masks(model: nn.Module, density: float = 0.05, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random masks of all parameters."""
    chance = torch.Generator().manual_seed(seed)
    return {name: torch.rand(p.shape, generator=chance) < density for name, p in model.named_parameters()}


def pruned(model: Any, kept: int = 2, group: int = 4) -> Any:
    """KEPT:GROUP of the matrices inside the layers."""
    axes = encoder_matrices(model)
    scores = {name: model.get_parameter(name).detach().abs() for name in axes}
    for name, mask in select_in_groups(scores, kept, group, axes).items():
        model.get_parameter(name).data.mul_(mask)
    return model


def shift(model: nn.Module, by: float = 0.01) -> None:
    """Change all that trains."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(by)


def stock(model: Any, folder: Any) -> tuple[Any, dict[str, Any]]:
    """(what transformers loads of a model that has saved itself, what it says of missing and unexpected keys)."""
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder, output_loading_info=True)


def logits(model: nn.Module) -> torch.Tensor:
    """Of a fixed sequence, without dropout."""
    with torch.no_grad():
        return model.eval()(torch.arange(5, 15)[None]).logits
