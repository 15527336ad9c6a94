"""Memory by formula: activations against what autograd keeps of a Llama, states against counts by hand."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from glue_sparse.scaling.memory import activation_bytes, layer_bytes, memory, trained_entries
from glue_sparse.scaling.shapes import Decoder, entries
from glue_sparse.scaling.traffic import Sharding, Way

ROWS, LENGTH = 2, 16
TOKENS = ROWS * LENGTH


def decoder(layers: int) -> Decoder:
    """A small one, with fewer keys than queries."""
    return Decoder(96, 64, 176, layers, 4, 2, "tests")


def kept_bytes(layers: int, dtype: torch.dtype, recomputes: bool) -> int:
    """Bytes that autograd keeps of a forward pass, each storage once, without weights."""
    one = decoder(layers)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=one.vocab_size,
            hidden_size=one.hidden_size,
            intermediate_size=one.intermediate_size,
            num_hidden_layers=layers,
            num_attention_heads=one.num_attention_heads,
            num_key_value_heads=one.num_key_value_heads,
            use_cache=False,
        )
    )
    model = model.to(dtype).train()  # pyright: ignore[reportArgumentType]
    if recomputes:
        model.activation_checkpointing_enable()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other gets its place
        return tensor

    ids = torch.arange(TOKENS).view(ROWS, LENGTH)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, labels=ids)
    return sum(one.untyped_storage().nbytes() for place, one in found.items() if place not in weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recomputes", [False, True])
def test_activations_of_a_layer_are_those_that_autograd_keeps(dtype: torch.dtype, recomputes: bool):
    measured = kept_bytes(3, dtype, recomputes) - kept_bytes(2, dtype, recomputes)
    item_bytes = dtype.itemsize
    told = [activation_bytes(decoder(layers), item_bytes, TOKENS, recomputes) for layers in (2, 3)]
    assert told[1] - told[0] == measured
    assert measured == TOKENS * (64 * item_bytes if recomputes else layer_bytes(decoder(1), item_bytes))


def test_what_lies_behind_the_layers_is_at_least_what_autograd_keeps_of_it():
    for dtype in (torch.float32, torch.bfloat16):
        behind = kept_bytes(1, dtype, False) - (kept_bytes(2, dtype, False) - kept_bytes(1, dtype, False))
        told = activation_bytes(decoder(1), dtype.itemsize, TOKENS, False)
        told -= TOKENS * layer_bytes(decoder(1), dtype.itemsize)
        scores = TOKENS * 96 * (4 + (2 if dtype == torch.bfloat16 else 0))  # gone when the pass is over
        assert 0 < behind < told and behind == pytest.approx(told - scores, rel=0.1)


def test_states_are_counted_by_hand():
    one, ranks = decoder(2), 64  # rows of 64, 32, 176 and 96 in 64 chunks: 1, 1, 3 and 2 rows each, norms one number
    layer = 64 + 2 * 64 + 64 + 2 * 3 * 64 + 176 + 2
    outside = 2 * 2 * 64 + 1
    whole = memory(one, Way("all", whole=True), Sharding(ranks), TOKENS)
    assert whole.weights == 4 * (2 * layer + outside) and whole.optimizer == 2 * whole.weights and not whole.active
    assert whole.gathered == 2 * ranks * (2 * layer + outside)
    assert whole.gradients == whole.weights + 6 * ranks * max(layer, outside)
    k = round(0.01 * one.num_entries())
    active = memory(one, Way("active", density=0.01), Sharding(ranks), TOKENS)
    assert active.weights == 2 * (2 * layer + outside) and active.gathered == whole.gathered
    assert active.active == (4 + 4 + 2) * k and active.optimizer == 8 * k
    assert active.gradients == 4 * k + 2 * 64 * 176
    lora = memory(one, Way("lora", rank=4), Sharding(ranks), TOKENS)
    adapters = 6 * 64 + 176 + 4 * (1 + 1 + 1 + 1 + 3 + 3 + 1)  # a row of each [4, in], and rows of [out, 4]
    assert lora.optimizer == 8 * 2 * adapters


def test_layers_that_stay_are_all_gathered_and_one_gpu_gathers_nothing():
    one, way = decoder(4), Way("active", density=0.01)
    few, all_of_them = (memory(one, way, Sharding(2, reshards=on), TOKENS).gathered for on in (True, False))
    layer, outside = 2 * entries(one.layer()), 2 * entries(one.outside())  # two ranks pad none of them
    assert few == 2 * layer + outside and all_of_them == 4 * layer + outside
    assert memory(one, way, Sharding(1), TOKENS).gathered == 0


def test_what_trains_is_counted():
    one = decoder(2)
    assert trained_entries(one, Way("all", whole=True)) == one.num_entries()
    assert trained_entries(one, Way("active", density=0.01)) == round(0.01 * one.num_entries())
    inputs_and_outputs = sum(map(sum, one.linear_maps()))
    assert trained_entries(one, Way("lora", rank=4)) == 2 * 4 * inputs_and_outputs
