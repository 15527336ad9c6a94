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

_REPEATS = 5
"""Of each in a sample; what was not used for a while is slow the first time, so that the median counts."""


class Links:
    """Samples of what these ranks do at once, taken between their steps, so that other work disturbs both alike.

    Products and messages are as large as a step of the decoder has them, in float32. All that takes part is in the
    constants, so that no share of them is assumed.

    Args:
        shape: of the decoder.
        tokens: of a rank's batch.
    """

    def __init__(self, shape: Decoder, mesh: DeviceMesh, tokens: int) -> None:
        self.shape, self.tokens, self.count, self.kind = shape, tokens, mesh.size(), mesh.device_type
        self.chunk = Sharding(self.count).shard(shape.layer())
        self.does = {"products": self._products(), "call": self._gathering(1), "message": self._gathering(self.chunk)}
        self.times: dict[str, list[float]] = {name: [] for name in self.does}

    def _products(self) -> Callable[[], object]:
        """Those of a layer."""
        pairs = [(torch.ones(self.tokens, inputs, device=self.kind), torch.ones(outputs, inputs, device=self.kind))
                 for outputs, inputs in self.shape.linear_maps()]  # fmt: skip
        return lambda: [torch.nn.functional.linear(rows, weight) for rows, weight in pairs]

    def _gathering(self, size: int) -> Callable[[], object]:
        """An all-gather to which each rank hands `size` float32 numbers."""
        mine, whole = torch.ones(size, device=self.kind), torch.empty(self.count * size, device=self.kind)
        return lambda: dist.all_gather_into_tensor(whole, mine)

    def sample(self) -> None:
        """Take one; all ranks call it."""
        for name, do in self.does.items():
            times = []
            for _ in range(_REPEATS):
                ranks.wait()
                started = time.perf_counter()
                do()
                if self.kind == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - started)
            self.times[name].append(statistics.median(map(max, zip(*ranks.everyones(times), strict=True))))

    def device(self) -> Device:
        """A device like those of `devices.yaml`, by the medians of the samples; seconds are those of slower ranks."""
        seconds = {name: statistics.median(times) for name, times in self.times.items()}
        call, size = seconds["call"], FLOAT32 * self.chunk
        flops = 2 * self.tokens * entries(self.shape.linear_maps()) / seconds["products"]
        link = (self.count - 1) * size / max(seconds["message"] - call, 1e-9)
        place = f"{self.count} processes on one CPU, loopback" if self.kind == "cpu" else f"{self.count} GPUs here"
        multiplying = _measured(flops, f"products of a layer with {self.tokens} tokens, {place}")
        sending = _measured(link, f"an all-gather of a layer's chunks ({size:,} bytes), {place}")
        whole = _measured(1.0, "in the constants themselves")
        return Device(
            title=place, bfloat16_flops=multiplying, float32_flops=multiplying,
            memory_bytes=_measured(_memory(self.kind) / self.count, "what is here, shared out evenly"),
            node_gpus=_measured(self.count, "ranks"), node_link=sending, network_link=sending,
            compute_share=whole, link_share=whole, memory_share=whole,
            call_seconds=_measured(call / log2(self.count), f"an all-gather of one number, {place}"),
        )  # fmt: skip


def _measured(value: float, source: str) -> Constant:
    return Constant(value, "measured here", source)


def _memory(kind: str) -> int:
    if kind == "cuda":
        return torch.cuda.mem_get_info()[1] * torch.cuda.device_count()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
