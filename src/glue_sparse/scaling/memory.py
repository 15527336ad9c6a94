"""Memory of one GPU in a training step under FSDP2, predicted from shapes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from glue_sparse.scaling.shapes import Decoder, entries
from glue_sparse.scaling.traffic import FLOAT32, Group, Sharding, Way, groups

_PLACE = 4
"""Bytes of an active entry's position, an int32."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU by what they are; their sum is an upper bound, since not all are there at one time.

    Attributes:
        weights: chunks of all sharded tensors; those that train in float32.
        gathered: whole weights in the type of products: of the root, and of the layer at work with the next one, or of
            all layers where they are not given up.
        gradients: chunks of float32 gradients, and the largest whole gradient before it is reduced or read.
        optimizer: Adam's two moments of what trains, float32.
        active: values, positions and the base's values of active entries, on every rank.
        kept, recomputed: activations where all are kept, and where layers are computed again in the backward pass.
    """

    weights: int
    gathered: int
    gradients: int
    optimizer: int
    active: int
    kept: int
    recomputed: int

    def total(self, recomputes: bool) -> int:
        """All together, with the activations of one of the two ways."""
        state = self.weights + self.gathered + self.gradients + self.optimizer + self.active
        return state + (self.recomputed if recomputes else self.kept)


def memory(decoder: Decoder, way: Way, sharding: Sharding, tokens: int) -> Memory:
    """What a step takes at most.

    Args:
        tokens: of a GPU in one forward pass.
    """
    found, active = groups(decoder, way), way.num_active(decoder)
    frozen = sum(group.count * sharding.shard(group.frozen) for group in found)
    trained = sum(group.count * sharding.shard(group.trained) for group in found)
    whole = max((sharding.item_bytes + sharding.reduce_bytes) * _whole(group, sharding) for group in found)
    largest = max(prod(shape) for shape in (*decoder.layer(), *decoder.outside()))
    return Memory(
        weights=sharding.item_bytes * frozen + FLOAT32 * trained,
        gathered=_gathered(found, sharding),
        gradients=FLOAT32 * (trained + active) + max(whole, sharding.item_bytes * largest if active else 0),
        optimizer=2 * FLOAT32 * (trained + active),
        active=(FLOAT32 + _PLACE + sharding.item_bytes) * active,
        kept=activation_bytes(decoder, sharding.item_bytes, tokens, recomputes=False),
        recomputed=activation_bytes(decoder, sharding.item_bytes, tokens, recomputes=True),
    )


def _whole(group: Group, sharding: Sharding) -> int:
    """Entries of a group's gradients before they are reduced, padded."""
    return sharding.num_ranks * sharding.shard(group.trained)


def _gathered(found: Sequence[Group], sharding: Sharding) -> int:
    """One GPU alone gathers nothing, but copies what trains where that is held in another type."""
    total = 0
    for group in found:
        is_copied = sharding.num_ranks > 1 or sharding.item_bytes != FLOAT32
        shapes = [*(group.frozen if sharding.num_ranks > 1 else []), *(group.trained if is_copied else [])]
        count = min(2, group.count) if sharding.reshards else group.count
        total += count * sharding.num_ranks * sharding.shard(shapes)
    return sharding.item_bytes * total


def layer_bytes(decoder: Decoder, item_bytes: int) -> int:
    """Bytes that autograd keeps of one layer for each token, as transformers' Llama computes with fused attention.

    In the type of products: two norms (before and after their weight), queries, keys, values, what attention gives,
    and the gate, its activation, the other branch and their product: 6 hidden + 2 keys + 4 intermediate numbers. In
    float32: the inputs of both norms with a factor each, and a number for each head.
    """
    narrow = 6 * decoder.hidden_size + 2 * decoder.key_size + 4 * decoder.intermediate_size
    return item_bytes * narrow + FLOAT32 * (2 * decoder.hidden_size + 2 + decoder.num_attention_heads)


def activation_bytes(decoder: Decoder, item_bytes: int, tokens: int, recomputes: bool) -> int:
    """Bytes of the activations of a forward and backward pass at their most.

    Recomputed, each layer keeps its input, and one layer is there whole. Behind the layers are the last norm, and the
    scores of all words: in the type of products, in float32, and their logarithms or gradient in float32.

    Args:
        tokens: of a GPU in one forward pass.
    """
    layer = layer_bytes(decoder, item_bytes)
    norm = 2 * item_bytes * decoder.hidden_size + FLOAT32 * (decoder.hidden_size + 1)
    words = decoder.vocab_size * (2 * FLOAT32 + (item_bytes if item_bytes < FLOAT32 else 0))
    if recomputes:
        return tokens * (decoder.num_hidden_layers * item_bytes * decoder.hidden_size + norm + max(layer, words))
    return tokens * (decoder.num_hidden_layers * layer + norm + words)


def trained_entries(decoder: Decoder, way: Way) -> int:
    """Entries that an optimizer updates, over all GPUs."""
    return sum(group.count * entries(group.trained) for group in groups(decoder, way)) + way.num_active(decoder)
