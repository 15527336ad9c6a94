"""Passes over tensors in parts, so that no dense intermediate is ever formed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

_CHUNK = 32_000
"""Entries worked on at a time on a CPU: what a core's cache holds, so that no dense intermediate is ever formed, and
fewer than the 32,768 from which torch shares out every single operation among threads."""
_CHUNK_OF_ACCELERATOR = 1 << 22
"""The same on an accelerator: enough to keep it busy, and little beside a large model's tensors."""

T = TypeVar("T")


def by_parts(work: Callable[..., T], *tensors: Tensor) -> list[T]:
    """What `work` returns for each part of contiguous tensors of one size, in order; without a record for gradients.

    On a CPU threads take the parts in turns, as many as torch has: an operation on a part that a core's cache holds is
    too short to be shared out itself. What comes out does not depend on their number.

    Args:
        work: called with the flat position at which a part begins, and the flat part of each tensor.
    """
    size, on_cpu = chunk(tensors[0]), tensors[0].device.type == "cpu"
    with torch.no_grad():
        parts = list(enumerate(zip(*(t.view(-1).split(size) for t in tensors), strict=True)))
    count = min(torch.get_num_threads(), len(parts)) if on_cpu else 1

    @torch.no_grad()  # which each thread has to say itself
    def share(first: int) -> list[T]:
        return [work(index * size, *part) for index, part in parts[first::count]]

    if count < 2:
        return share(0)
    with ThreadPoolExecutor(count - 1) as pool:
        others = [pool.submit(share, first) for first in range(1, count)]
        shares = [share(0), *(other.result() for other in others)]
    return [shares[index % count][index // count] for index in range(len(parts))]


def chunk(tensor: Tensor) -> int:
    """How many entries of a tensor are worked on at a time."""
    return _CHUNK if tensor.device.type == "cpu" else _CHUNK_OF_ACCELERATOR
