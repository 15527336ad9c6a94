"""Entries of many tensors written by several threads, each of which takes some of the tensors."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from glue_sparse.banks.loaded import Bits

Write = tuple[Bits, Bits, Bits]
"""A flat tensor, [k] positions in it, and [k] bits to put there."""
_SHARE = 500_000
"""Entries that are worth a thread of their own: they take milliseconds, and its start a tenth of one."""


def write(tensors: Sequence[Sequence[Write]]) -> None:
    """Do all writes: those of one tensor in their order, those of different tensors at once where they are many.

    As many threads as torch has may work, since NumPy lets others go on meanwhile. What is bound by memory gains from
    a second core too: one core alone does not keep memory busy.
    """
    sizes = [sum(len(places) for _, places, _ in writes) for writes in tensors]
    count = min(torch.get_num_threads(), sum(sizes) // _SHARE)
    if count < 2 or not isinstance(tensors[0][0][0], np.ndarray):
        _do(tensors)
        return
    groups: list[list[Sequence[Write]]] = [[] for _ in range(count)]
    loads = [0] * count
    for index in sorted(range(len(tensors)), key=sizes.__getitem__, reverse=True):
        least = loads.index(min(loads))
        groups[least].append(tensors[index])
        loads[least] += sizes[index]
    with ThreadPoolExecutor(count - 1) as pool:
        others = [pool.submit(_do, group) for group in groups[1:]]
        _do(groups[0])
        for other in others:
            other.result()


def _do(tensors: Sequence[Sequence[Write]]) -> None:
    for writes in tensors:
        for flat, places, bits in writes:
            flat[places] = bits
