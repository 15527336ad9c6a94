"""Counts by formula against models of transformers without storage: entries, tensors and FLOPs."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from glue_sparse.costs.flops import forward_flops
from glue_sparse.scaling import shapes
from glue_sparse.scaling.shapes import Decoder

SMALL = Decoder(40, 16, 24, 2, 4, 2, "tests")
TIED = Decoder(40, 16, 24, 3, 2, 2, "tests", tie_word_embeddings=True)
SHIPPED = shapes.read(["1.3b", "8b", "70b"])


def llama(decoder: Decoder) -> LlamaForCausalLM:
    """The same without storage."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "tie_word_embeddings")  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**{name: getattr(decoder, name) for name in names}, use_cache=False))
    model.tie_weights()
    return model


@pytest.mark.parametrize("decoder", [SMALL, TIED, *SHIPPED.values()], ids=["small", "tied", *SHIPPED])
def test_tensors_are_those_of_a_llama(decoder: Decoder):
    found = [tuple(parameter.shape) for parameter in llama(decoder).parameters()]
    assert Counter(found) == Counter(decoder.layer() * decoder.num_hidden_layers + decoder.outside())
    assert decoder.num_entries() == sum(map(torch.Size.numel, map(torch.Size, found)))


def test_the_names_of_the_shipped_shapes_are_their_sizes():
    sizes = {"1.3b": 1.3e9, "8b": 8e9, "70b": 70e9}
    assert {name: pytest.approx(size, rel=0.05) for name, size in sizes.items()} == {
        name: decoder.num_entries() for name, decoder in SHIPPED.items()
    }


def test_flops_are_those_that_are_counted_but_for_the_half_of_attention_that_looks_ahead():
    length, ids = 8, torch.zeros(1, 8, dtype=torch.long)
    counted = forward_flops(LlamaForCausalLM(llama(SMALL).config), {"input_ids": ids})
    told = SMALL.forward_flops(length)
    assert told["weights"] * length == sum(counted.by_tensor.values())
    assert counted.dense - sum(counted.by_tensor.values()) == 2 * told["attention"] * length


def test_a_file_of_shapes_is_read_and_what_is_wrong_with_one_is_said(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    line = "{vocab_size: 40, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 4, "
    file.write_text(f"mine: {line}num_key_value_heads: 2, source: tests}}")
    assert shapes.read([str(file), "8b"]) == {"mine": SMALL, "8b": SHIPPED["8b"]}
    for end, said in (("num_key_value_heads: 3, source: x}", "must divide"), ("source: x}", "lacks `mine.num_key"),
                      ("num_key_value_heads: 0, source: x}", "`num_key_value_heads` must be at least 1")):  # fmt: skip
        file.write_text(f"mine: {line}{end}")
        with pytest.raises(ValueError, match=said):
            shapes.read([str(file)])
    with pytest.raises(ValueError, match="unknown model '9b'; did you mean 8b"):
        shapes.read(["9b"])
