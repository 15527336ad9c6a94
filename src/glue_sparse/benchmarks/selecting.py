"""Measures `select`: seconds and memory of choosing among scores in shapes of a decoder, beside three plain reads."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from glue_sparse.benchmarks import memory
from glue_sparse.benchmarks.training import DEVICE
from glue_sparse.core.masks import select
from glue_sparse.core.randomness import seeded
from glue_sparse.writing.tables import markdown

_WIDTH, _INNER = 2048, 5632
_LAYER = (*[(_WIDTH, _WIDTH)] * 4, *[(_INNER, _WIDTH)] * 2, (_WIDTH, _INNER))
"""Shapes of a layer of a decoder of a billion weights."""
_DENSITY = 0.005
_ROUNDS = 3
_READS = 3
"""As often `select` reads each score."""


def scores_like(num_entries: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Squares of random numbers, layer after layer until there are so many; the last tensor is what is left, [k]."""
    found: dict[str, Tensor] = {}
    left = num_entries
    while left:
        for shape in _LAYER:
            size = min(left, shape[0] * shape[1])
            if not size:
                break
            numbers = torch.randn(size, generator=seeded(0, "select", str(len(found)))).square_().to(DEVICE, dtype)
            found[f"tensor {len(found)}"] = numbers.view(shape) if size == shape[0] * shape[1] else numbers
            left -= size
    return found


def run(most: int) -> None:
    """Print the table for a hundredth, a tenth and all of so many entries, in float32 and bfloat16."""
    memory.check(DEVICE)
    rows: list[list[str]] = []
    for dtype in (torch.float32, torch.bfloat16):
        for num_entries in sorted({max(1, most // share) for share in (100, 10, 1)}):
            rows.append(_row(num_entries, dtype))
    print(f"select of {_DENSITY:.1%} of all entries, {DEVICE.type} ({torch.get_num_threads()} threads), medians of "
          f"{_ROUNDS} rounds, in turns with {_READS} reads of all scores\n")  # fmt: skip
    print(markdown(["type", "entries", "bytes", "s", "range s", "ns per entry", "entries per s", "of the reads",
                    "peak MiB beside them"], rows))  # fmt: skip


def _row(num_entries: int, dtype: torch.dtype) -> list[str]:
    scores = scores_like(num_entries, dtype)
    budget = max(1, int(_DENSITY * num_entries))
    before = memory.now(DEVICE)
    with memory.used(DEVICE) as used:
        select(scores, budget)
    chosen, read = [], []
    for _ in range(_ROUNDS):
        chosen.append(_seconds(lambda: select(scores, budget)))
        read.append(_seconds(lambda: [float(score.max()) for _ in range(_READS) for score in scores.values()]))
    seconds = statistics.median(chosen)
    return [
        str(dtype).removeprefix("torch."), f"{num_entries:,}", f"{sum(x.nbytes for x in scores.values()):,}",
        f"{seconds:.2f}", f"{min(chosen):.2f}-{max(chosen):.2f}", f"{seconds / num_entries * 1e9:.1f}",
        f"{num_entries / seconds:,.0f}", f"{seconds / statistics.median(read):.1f}",
        f"{(used.peak - before) / 2**20:.0f}",
    ]  # fmt: skip


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
