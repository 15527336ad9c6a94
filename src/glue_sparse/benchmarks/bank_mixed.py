"""Measures batches whose rows belong to several tasks: all in one pass, and in a pass for each task."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from glue_sparse.banks.corrections import Corrections
from glue_sparse.banks.mixed import MixedForward, loop_forward
from glue_sparse.banks.mixed_choice import TRIES, MixedOrLoop
from glue_sparse.banks.mixed_layers import written
from glue_sparse.banks.mixed_rows import Rows
from glue_sparse.benchmarks.training import DEVICE, batch_of, on_device
from glue_sparse.core.masks import narrow
from glue_sparse.core.params import head_names
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import FILE_NAME
from glue_sparse.models.loading import load_classifier
from glue_sparse.models.of_diff import load_base
from glue_sparse.writing.tables import markdown

RUNS = Path("runs/bank/minilm/fish")
"""Where trained tasks of MiniLM lie: a folder for each task, and in it one for each seed."""
TASKS, ROWS, TOKENS = (1, 2, 4, 8, 16, 32), (8, 32, 128), (64, 8)
DENSITY = 0.005
HEADER = ("tokens", "rows", "tasks", "mixed, ms", "loop, ms", "mixed / loop", "range", "auto", "difference")


class Cell(NamedTuple):
    """One size of batches.

    Attributes:
        mixed, loop: seconds of each pass.
        auto: the way that `auto` takes after its first batches.
        difference: the largest one between both ways, as part of the row's largest logit.
    """

    tokens: int
    rows: int
    tasks: int
    mixed: list[float]
    loop: list[float]
    auto: str
    difference: float

    def line(self) -> tuple[str, ...]:
        """Of the table; ratios are of the two passes of a round."""
        ratios = [one / other for one, other in zip(self.mixed, self.loop, strict=True)]
        return (
            str(self.tokens), str(self.rows), str(self.tasks), f"{1000 * statistics.median(self.mixed):.0f}",
            f"{1000 * statistics.median(self.loop):.0f}", f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f}-{max(ratios):.2f}", self.auto, f"{self.difference:.0e}",
        )  # fmt: skip


def measured(steps: int, quick: bool = False, runs: Path = RUNS) -> tuple[str, dict[str, Any]]:
    """(the table as text, its numbers).

    Args:
        steps: counted rounds; in each both ways take the same batch, in turns.
        quick: without the largest batches.
        runs: trained tasks; without one, random entries.
    """
    model, diffs = tasks_of(runs)
    mixed = MixedForward(model.to(DEVICE).eval())
    started = time.perf_counter()
    prepared = {name: mixed.prepare(diff) for name, diff in diffs.items()}
    each = (time.perf_counter() - started) / len(prepared)
    cells = [cell(mixed, prepared, steps, *size) for size in sizes(quick)]
    sources = len({diff.digest() for diff in diffs.values()})
    told = (f"Batches of several tasks, MiniLM, {DEVICE.type} ({torch.get_num_threads()} threads), {sources} "
            f"{'trained' if found(runs) else 'random'} diffs of 0.5 % as {len(diffs)} tasks, {steps} rounds. A task is "
            f"prepared in {1000 * each:.0f} ms.")  # fmt: skip
    return f"{told}\n\n{markdown(HEADER, [one.line() for one in cells])}", {"cells": [one._asdict() for one in cells]}


def sizes(quick: bool) -> Iterator[tuple[int, int, int]]:
    """Tokens, rows and tasks of each cell."""
    for tokens in TOKENS:
        for rows in ROWS[:-1] if quick else ROWS:
            yield from ((tokens, rows, tasks) for tasks in TASKS if tasks <= rows)


def found(runs: Path) -> list[Path]:
    """Folders of trained tasks, the first seed of each task first."""
    places = sorted(runs.glob(f"*/*/{FILE_NAME}"), key=lambda path: (path.parent.name, path))
    return [path.parent for path in places][: TASKS[-1]]


def tasks_of(runs: Path) -> tuple[nn.Module, dict[str, SparseDiff]]:
    """MiniLM and as many tasks as the largest cell has; what there is comes several times, under other names."""
    diffs = [SparseDiff.from_pretrained(folder) for folder in found(runs)]
    model: Any = load_base(diffs[0].info) if diffs else load_classifier("minilm", 2)
    diffs = diffs or [random_diff(model, seed) for seed in range(8)]
    return model, {f"task {number}": diffs[number % len(diffs)] for number in range(TASKS[-1])}


def random_diff(model: nn.Module, seed: int) -> SparseDiff:
    """0.5 % of each tensor outside of the head, changed a little, and a head of its own."""
    chance, head = torch.Generator().manual_seed(seed), head_names(model)
    indices, values, whole = {}, {}, {}
    for name, parameter in model.named_parameters():
        count = max(1, round(DENSITY * parameter.numel()))
        if name in head:
            whole[name] = 0.02 * torch.randn(parameter.shape, generator=chance)
            continue
        places = torch.randint(0, parameter.numel(), (count,), generator=chance).unique()
        indices[name] = narrow(places, parameter.numel())
        values[name] = parameter.detach().view(-1)[places] + 0.01 * torch.randn(len(places), generator=chance)
    shapes = {name: tuple(model.get_parameter(name).shape) for name in indices}
    return SparseDiff(indices, values, whole, shapes, {})


def cell(
    mixed: MixedForward, prepared: Mapping[str, Corrections], steps: int, tokens: int, rows: int, count: int
) -> Cell:
    """Rows of the tasks in turns; `auto` first, then both ways in turns."""
    batch = {name: value for name, value in on_device(batch_of(rows, tokens)).items() if name != "labels"}
    names = [[*prepared][row % count] for row in range(rows)]
    use = swapping(mixed, prepared)
    choice = MixedOrLoop(mixed, use, prepared.__getitem__)
    for _ in range(2 * TRIES + 1):
        choice.forward(batch, names)
    ways: dict[str, Callable[[], Rows]] = {
        "mixed": lambda: mixed.forward(batch, names, prepared),
        "loop": lambda: loop_forward(use, mixed.model, batch, names),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    last: dict[str, Rows] = {}
    for number in range(steps):
        for way in [*ways] if number % 2 else reversed([*ways]):
            started = time.perf_counter()
            last[way] = ways[way]()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            times[way].append(time.perf_counter() - started)
    assert choice.last is not None
    return Cell(
        tokens, rows, count, times["mixed"], times["loop"], choice.last.way, difference(last["mixed"], last["loop"])
    )


def difference(one: Rows, other: Rows) -> float:
    """The largest of two answers, as part of the row's largest logit."""
    pairs = zip(one["logits"], other["logits"], strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def swapping(mixed: MixedForward, prepared: Mapping[str, Corrections]) -> Callable[[str], Any]:
    """Task -> a block within which the model has all of the task's entries."""

    @contextmanager
    def use(task: str) -> Iterator[None]:
        with ExitStack() as stack:
            for module, names in mixed.layers.items():
                stack.enter_context(written(module, names, prepared[task], ()))
            yield

    return use
