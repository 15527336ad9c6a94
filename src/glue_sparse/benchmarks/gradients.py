"""Measures ways to form the weight gradient of a linear layer at its active entries, in turns."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from glue_sparse.core.active import ActiveEntries
from glue_sparse.core.kept_inputs import picked
from glue_sparse.core.patterns import Pattern, gradient_at, pattern, sampled_product
from glue_sparse.core.randomness import seeded
from glue_sparse.writing.tables import markdown

SHAPES = ((384, 384), (1536, 384), (384, 1536), (768, 768), (3072, 768), (768, 3072))
"""[outputs, inputs] of MiniLM and of BERT-base."""
_DENSITY, _INPUTS = 0.005, 0.15
_TOKENS = 2048
HEADER = ("matrix", "mask", "dense, ms", "sampled", "used inputs, sampled", "used inputs, dense", "chosen", "which")

Way = Callable[[], Tensor]


def masks_of(rows: int, columns: int) -> dict[str, Tensor]:
    """0.5 % of the entries, scattered, and in 15 % of the inputs, about as many as masks of the Fisher use."""
    generator = seeded(0, "masks")
    count = round(_DENSITY * rows * columns)
    scattered = torch.randperm(rows * columns, generator=generator)[:count]
    inputs = torch.randperm(columns, generator=generator)[: round(_INPUTS * columns)]
    inside = torch.randperm(rows * len(inputs), generator=generator)[:count]
    few = inside // len(inputs) * columns + inputs[inside % len(inputs)]
    return {"scattered": scattered.sort().values, "few inputs": few.sort().values}


def _ways(grad: Tensor, x: Tensor, indices: Tensor) -> tuple[dict[str, Way], Pattern | None]:
    columns = x.shape[1]
    starts = torch.searchsorted(indices, torch.arange(0, (grad.shape[1] + 1) * columns, columns)).int()
    used, inside = (indices % columns).unique(return_inverse=True)
    places = indices // columns * len(used) + inside
    chosen = pattern(ActiveEntries(torch.zeros(grad.shape[1], columns), indices, "frozen"))

    def as_chosen() -> Tensor:
        if chosen is None:
            return (grad.t() @ x).view(-1)[indices]
        return gradient_at(picked(grad, chosen.rows), picked(x, chosen.columns), chosen.starts, chosen.places)

    return {
        "dense": lambda: (grad.t() @ x).view(-1)[indices],
        "sampled": lambda: sampled_product(grad, x, starts, (indices % columns).int()),
        "used sampled": lambda: sampled_product(grad, picked(x, used), starts, inside.int()),
        "used dense": lambda: (grad.t() @ picked(x, used)).view(-1)[places],
        "chosen": as_chosen,
    }, chosen


def _seconds(ways: dict[str, Way], repeats: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in ways}
    for step in range(repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if step:  # warm-up
                found[name].append(time.perf_counter() - started)
    return found


def _word(chosen: Pattern | None) -> str:
    if chosen is None:
        return "dense"
    sides = [name for name, one in (("outputs", chosen.rows), ("inputs", chosen.columns)) if one is not None]
    return f"{'dense' if chosen.starts is None else 'sampled'} of {' and '.join(sides) or 'all'}"


def compare(repeats: int) -> None:
    """Print the table; every other way as a share of the dense one, which forms the whole gradient and reads it."""
    print(f"weight gradients of {_TOKENS} tokens at {_DENSITY:.1%} of the entries, float32, "
          f"{torch.get_num_threads()} threads, medians of {repeats}\n")  # fmt: skip
    lines = []
    for rows, columns in SHAPES:
        generator = seeded(0, "sides")
        grad, x = (torch.randn(_TOKENS, size, generator=generator) for size in (rows, columns))
        for name, indices in masks_of(rows, columns).items():
            ways, chosen = _ways(grad, x, indices)
            median = {way: statistics.median(times) for way, times in _seconds(ways, repeats).items()}
            shares = [f"{median[way] / median['dense']:.2f}" for way in list(ways)[1:]]
            lines.append((f"{rows} x {columns}", name, f"{1000 * median['dense']:.1f}", *shares, _word(chosen)))
    print(markdown(HEADER, lines))
