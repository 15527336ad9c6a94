"""A step of each model, on each number of GPUs, by each way of training: memory, bytes and seconds, simulated."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log2

from glue_sparse.core.options import Dtype
from glue_sparse.costs.formulas import Forward, training_flops
from glue_sparse.scaling.devices import Device
from glue_sparse.scaling.memory import Memory, memory, trained_entries
from glue_sparse.scaling.shapes import Decoder, entries
from glue_sparse.scaling.traffic import Call, Kind, Sharding, Way, calls, sent_bytes
from glue_sparse.writing.bounds import COUNT, check

ITEM_BYTES: dict[Dtype, int] = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class Work:
    """What each GPU is given.

    Attributes:
        tokens: of one forward pass.
        length: tokens of a sequence.
        micro_steps: forward and backward passes in an optimizer step.
        dtype: of products, and of weights that do not train.
        reshards: see `Sharding`.
    """

    tokens: int = 4096
    length: int = 2048
    micro_steps: int = 1
    dtype: Dtype = "bfloat16"
    reshards: bool = True

    def __post_init__(self) -> None:
        check("tokens", self.tokens, COUNT, int)
        check("length", self.length, COUNT, int)
        if self.length > self.tokens:
            raise ValueError(f"`length` is {self.length}, longer than the `tokens` of a GPU: make it {self.tokens}")


@dataclass(frozen=True)
class Cell:
    """One model, number of GPUs and way of training.

    Attributes:
        trains: entries that an optimizer updates.
        memory: of one GPU.
        recomputes: whether layers are computed again in the backward pass: where activations do not fit otherwise.
            None where nothing fits.
        sent: bytes that each rank sends in an optimizer step, by what is sent.
        compute, communication: seconds of an optimizer step, each alone; with layers computed again where nothing fits.
        hidden, apart: seconds of a step in which all that can be is sent while products run, and in which nothing is.
    """

    model: str
    gpus: int
    way: str
    trains: int
    memory: Memory
    recomputes: bool | None
    sent: Mapping[Kind, float]
    compute: float
    communication: float
    hidden: float
    apart: float
    tokens_per_second: float


def flops_per_token(decoder: Decoder, way: Way, length: int, recomputes: bool) -> float:
    """FLOPs of a forward and backward pass: 2 f_D + f_W, and f_D again where layers are computed twice.

    f_W has the products of gradients of weights, of attention and of adapters. Active entries count as if all weights
    trained: a GPU forms the whole gradient of a matrix, from which theirs are read.
    """
    forward = decoder.forward_flops(length)
    adapters = 2 * decoder.num_hidden_layers * entries(way.adapters(decoder))
    dense = forward.total() + adapters
    trained = adapters + forward["attention"] + (forward["weights"] if way.whole or way.density else 0)
    step = training_flops("frozen", Forward(dense=dense, sparse=dense, trained=trained, by_tensor={}))
    return step + (dense if recomputes else 0)


def seconds(call: Call, device: Device, num_ranks: int) -> float:
    """What calls take alone: their bytes at the ring's bandwidth, and a part that grows with the logarithm of N."""
    sending = call.sent(num_ranks) / device.bandwidth(num_ranks)
    return sending + call.count * device.call_seconds.value * log2(num_ranks)


def cell(name: str, decoder: Decoder, way: Way, num_ranks: int, work: Work, device: Device) -> Cell:
    """One line of the plan."""
    sharding = Sharding(num_ranks, ITEM_BYTES[work.dtype], reshards=work.reshards, micro_steps=work.micro_steps)
    used = memory(decoder, way, sharding, work.tokens)
    fitting = [again for again in (False, True) if used.total(again) <= device.usable_bytes()]
    recomputes = fitting[0] if fitting else None
    told = calls(decoder, way, sharding)
    tokens = work.tokens * work.micro_steps
    flops = tokens * flops_per_token(decoder, way, work.length, recomputes is not False)
    compute = flops / device.flops(work.dtype)
    hides = sum(seconds(call, device, num_ranks) for call in told if call.hides)
    after = sum(seconds(call, device, num_ranks) for call in told if not call.hides)
    hidden = max(compute, hides) + after
    return Cell(
        model=name, gpus=num_ranks, way=way.name, trains=trained_entries(decoder, way), memory=used,
        recomputes=recomputes, sent=sent_bytes(told, num_ranks), compute=compute, communication=hides + after,
        hidden=hidden, apart=compute + hides + after, tokens_per_second=num_ranks * tokens / hidden,
    )  # fmt: skip


def plan(
    decoders: Mapping[str, Decoder], gpus: Sequence[int], ways: Sequence[Way], work: Work, device: Device
) -> Iterator[Cell]:
    """All cells, by model, number of GPUs and way."""
    for name, decoder in decoders.items():
        for count in gpus:
            for way in ways:
                yield cell(name, decoder, way, count, work, device)
