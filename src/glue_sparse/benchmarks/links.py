"""Constants of the time model, measured where ranks run: how fast they multiply, and send to each other."""

import os
import statistics
import time
from collections.abc import Callable
from math import log2

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from glue_sparse.core import ranks
from glue_sparse.scaling.devices import Constant, Device
from glue_sparse.scaling.shapes import Decoder, entries
from glue_sparse.scaling.traffic import FLOAT32, Sharding

_REPEATS = 30


def measured_device(shape: Decoder, mesh: DeviceMesh, tokens: int) -> Device:
    """A device like those of `devices.yaml`, whose constants are those of these ranks while all of them work.

    Products and messages are as large as a step of the decoder has them. All that takes part is in the constants, so
    that no share of them is assumed.

    Args:
        shape: of the decoder, in float32.
        tokens: of a rank's batch.
    """
    count, kind = mesh.size(), mesh.device_type
    chunk = Sharding(count).shard(shape.layer())
    call = _gathering(count, 1, kind)
    message = _gathering(count, chunk, kind)
    link = (count - 1) * FLOAT32 * chunk / max(message - call, 1e-9)
    place = f"{count} processes on one CPU, loopback" if kind == "cpu" else f"{count} GPUs of one machine"
    all_of_it = Constant(1.0, "measured here", "in the constants themselves")
    flops = Constant(_flops(shape, tokens, kind), "measured here", f"products of a layer with {tokens} tokens, {place}")
    sending = Constant(link, "measured here", f"an all-gather of a layer's chunks ({FLOAT32 * chunk:,} bytes), {place}")
    return Device(
        title=place, bfloat16_flops=flops, float32_flops=flops,
        memory_bytes=Constant(_memory(kind) / count, "measured here", "what is here, shared out evenly"),
        node_gpus=Constant(count, "measured here", "ranks"), node_link=sending, network_link=sending,
        compute_share=all_of_it, link_share=all_of_it, memory_share=all_of_it,
        call_seconds=Constant(call / log2(count), "measured here", f"an all-gather of one number, {place}"),
    )  # fmt: skip


def _flops(shape: Decoder, tokens: int, kind: str) -> float:
    """FLOP/s of the products of one layer."""
    pairs = [(torch.ones(tokens, inputs, device=kind), torch.ones(outputs, inputs, device=kind))
             for outputs, inputs in shape.linear_maps()]  # fmt: skip

    def products() -> None:
        for rows, weight in pairs:
            torch.nn.functional.linear(rows, weight)

    return 2 * tokens * entries(shape.linear_maps()) / _seconds(products, kind)


def _gathering(count: int, size: int, kind: str) -> float:
    """Seconds of an all-gather to which each rank hands `size` float32 numbers."""
    mine, whole = torch.ones(size, device=kind), torch.empty(count * size, device=kind)
    return _seconds(lambda: dist.all_gather_into_tensor(whole, mine), kind)


def _seconds(do: Callable[[], object], kind: str) -> float:
    """Median seconds, of the slowest rank each time; the first time does not count."""
    times = []
    for _ in range(1 + _REPEATS):
        ranks.wait()
        started = time.perf_counter()
        do()
        if kind == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(map(max, zip(*ranks.everyones(times[1:]), strict=True)))


def _memory(kind: str) -> int:
    if kind == "cuda":
        return torch.cuda.mem_get_info()[1] * torch.cuda.device_count()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
