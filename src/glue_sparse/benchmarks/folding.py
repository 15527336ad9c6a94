"""Measures a training step whose forward passes only read the weights, and one whose passes write values each time."""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch

from glue_sparse.benchmarks.training import DEVICE, batch_of, build, on_device
from glue_sparse.core.folding import written_in_each_pass
from glue_sparse.writing.tables import markdown


class Case(NamedTuple):
    """A step: its examples, their length, micro-batches, and whether products are in bfloat16."""

    examples: int
    length: int
    micro: int
    bf16: bool


CASES = (Case(16, 128, 1, False), Case(4, 64, 4, False), Case(2, 32, 1, True))


def run(steps: int) -> None:
    """Print the table; each case's steps alternate between both ways, on one model with random masks of 0.5 %."""
    lines = []
    for case in CASES:
        model: Any = build("random")
        step = stepper(model, case)
        times: dict[bool, list[float]] = {True: [], False: []}
        for number in range(steps + 2):
            for writes in (True, False) if number % 2 else (False, True):
                with written_in_each_pass(model) if writes else nullcontext():
                    started = time.perf_counter()
                    step()
                    times[writes] += [time.perf_counter() - started] if number >= 2 else []
        ratios = sorted(folded / written for folded, written in zip(times[False], times[True], strict=True))
        lines.append((
            f"{case.examples} x {case.length}", str(case.micro), "bfloat16 autocast" if case.bf16 else "float32",
            f"{1000 * statistics.median(times[True]):.0f}", f"{1000 * statistics.median(times[False]):.0f}",
            f"{statistics.median(ratios):.3f}", f"{ratios[len(ratios) // 4]:.3f}-{ratios[-1 - len(ratios) // 4]:.3f}",
        ))  # fmt: skip
    print(f"training on {DEVICE.type} ({torch.get_num_threads()} threads), {steps} pairs of steps each\n")
    columns = ("batch", "micro-batches", "precision", "written in each pass, ms", "folded, ms", "ratio", "quartiles")
    print(markdown(columns, lines))


def stepper(model: Any, case: Case) -> Callable[[], None]:
    """A step of AdamW."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    batch = on_device(batch_of(case.examples, case.length))

    def step() -> None:
        for _ in range(case.micro):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=case.bf16):
                loss = model(**batch).loss
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return step
