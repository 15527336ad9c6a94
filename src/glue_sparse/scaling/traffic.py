"""Bytes of the collectives of one optimizer step under FSDP2, predicted from shapes.

PyTorch's `fully_shard` cuts each tensor into as many chunks of ceil(rows / N) rows as there are ranks, the last ones
padded, and sends the tensors of a group in one call (torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py). A layer
is a group, what lies outside of the layers is the root's. What is frozen has no gradient to reduce.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

from glue_sparse.scaling.shapes import Decoder, Shape
from glue_sparse.writing.bounds import COUNT, DENSITY, NOT_NEGATIVE, check

Kind = Literal["weights", "gradients", "other"]
Operation = Literal["all_gather", "reduce_scatter", "all_reduce"]
FLOAT32 = 4
"""Bytes of what trains, its gradient and each of Adam's moments."""


@dataclass(frozen=True)
class Way:
    """What trains.

    Attributes:
        name: as tables show it.
        whole: all entries.
        rank: of two matrices beside each linear map of the layers (LoRA), [rank, in] and [out, rank]; 0 for none.
        density: share of all entries that are active, held apart as [k] float32 values that every rank has whole.
    """

    name: str
    whole: bool = False
    rank: int = 0
    density: float = 0.0

    def __post_init__(self) -> None:
        check("rank", self.rank, NOT_NEGATIVE, int)
        check("density", self.density or None, DENSITY)

    def num_active(self, decoder: Decoder) -> int:
        """k, the active entries."""
        return round(self.density * decoder.num_entries())

    def adapters(self, decoder: Decoder) -> list[Shape]:
        """Shapes of the matrices beside the linear maps of one layer."""
        pairs = [((self.rank, inputs), (outputs, self.rank)) for outputs, inputs in decoder.linear_maps()]
        return [one for pair in pairs if self.rank for one in pair]


@dataclass(frozen=True)
class Sharding:
    """How a step is shared out.

    Attributes:
        num_ranks: N, the GPUs.
        item_bytes: of the type that weights are gathered and multiplied in.
        reduce_bytes: of the type that gradients of sharded tensors are reduced in.
        reshards: whether a layer's weights are given up after its forward pass, and gathered again in the backward one
            (`reshard_after_forward`); the root's are not, which is FSDP2's default.
        micro_steps: forward and backward passes in an optimizer step.
        clips: whether gradients are clipped by their norm, for which each sharded one sends a float32 number.
    """

    num_ranks: int
    item_bytes: int = 2
    reduce_bytes: int = FLOAT32
    reshards: bool = True
    micro_steps: int = 1
    clips: bool = True

    def __post_init__(self) -> None:
        check("num_ranks", self.num_ranks, COUNT, int)
        check("micro_steps", self.micro_steps, COUNT, int)

    def shard(self, shapes: Sequence[Shape]) -> int:
        """Entries of a rank's chunks of tensors, padding included."""
        return sum(ceil(rows / self.num_ranks) * prod(others) for rows, *others in shapes)


@dataclass(frozen=True)
class Group:
    """Tensors that FSDP2 gathers together.

    Attributes:
        frozen, trained: their shapes.
        count: how many groups are alike.
        is_root: whether it is what lies outside of the layers.
    """

    frozen: Sequence[Shape]
    trained: Sequence[Shape]
    count: int
    is_root: bool = False


@dataclass(frozen=True)
class Call:
    """Collectives of one size in an optimizer step.

    Attributes:
        kind: what is sent: weights, gradients of what trains, or other numbers.
        handed: bytes of the input that each rank hands to one call.
        count: calls in a step.
        hides: whether it may run while products do: layers are gathered ahead, and gradients reduced behind. What is
            sent when the backward pass is over may not.
    """

    kind: Kind
    operation: Operation
    handed: int
    count: int
    hides: bool

    def sent(self, num_ranks: int) -> float:
        """Bytes that each rank sends in all of these calls, by ring algorithms.

        An all-gather passes a shard on N - 1 times, a reduce-scatter sends (N - 1) / N of its input, an all-reduce is
        both.
        """
        share = {"all_gather": num_ranks - 1, "reduce_scatter": 1 - 1 / num_ranks, "all_reduce": 2 - 2 / num_ranks}
        return self.count * self.handed * share[self.operation]


def groups(decoder: Decoder, way: Way) -> list[Group]:
    """The layers, which are alike, and the root."""
    layer, outside = decoder.layer(), decoder.outside()
    adapters = way.adapters(decoder)
    if way.whole:
        return [Group([], [*layer, *adapters], decoder.num_hidden_layers), Group([], outside, 1, True)]
    return [Group(layer, adapters, decoder.num_hidden_layers), Group(outside, [], 1, True)]


def calls(decoder: Decoder, way: Way, sharding: Sharding) -> list[Call]:
    """What each rank hands to collectives in one optimizer step; nothing where it is alone.

    Active values are not sharded: their gradients, summed over micro-steps, are reduced and gathered once a step, each
    as a whole number of float32 chunks. Gradients of sharded tensors are reduced in every micro-step.
    """
    return [*_calls(decoder, way, sharding)] if sharding.num_ranks > 1 else []


def _calls(decoder: Decoder, way: Way, sharding: Sharding) -> Iterator[Call]:
    ranks, num_trained = sharding.num_ranks, 0
    for group in groups(decoder, way):
        gathers = 1 if group.is_root or not sharding.reshards else 2
        shard = sharding.item_bytes * sharding.shard([*group.frozen, *group.trained])
        yield Call("weights", "all_gather", shard, group.count * gathers * sharding.micro_steps, hides=True)
        if group.trained:
            num_trained += group.count * len(group.trained)
            whole = ranks * sharding.reduce_bytes * sharding.shard(group.trained)
            yield Call("gradients", "reduce_scatter", whole, group.count * sharding.micro_steps, hides=True)
    if active := way.num_active(decoder):
        chunk = FLOAT32 * sharding.shard([(active,)])
        yield Call("gradients", "reduce_scatter", ranks * chunk, 1, hides=False)
        yield Call("gradients", "all_gather", chunk, 1, hides=False)
    if num_trained and sharding.clips:
        yield Call("other", "all_reduce", FLOAT32 * num_trained, 1, hides=False)


def handed_bytes(found: Sequence[Call]) -> Counter[tuple[Kind, Operation]]:
    """Bytes of the inputs that each rank hands to collectives in a step: by what is sent, and how."""
    total: Counter[tuple[Kind, Operation]] = Counter()
    for call in found:
        total[call.kind, call.operation] += call.count * call.handed
    return total


def sent_bytes(found: Sequence[Call], num_ranks: int) -> dict[Kind, float]:
    """Bytes that each rank sends in a step, by what is sent: see `Call.sent`."""
    total: dict[Kind, float] = {"weights": 0.0, "gradients": 0.0, "other": 0.0}
    for call in found:
        total[call.kind] += call.sent(num_ranks)
    return total
