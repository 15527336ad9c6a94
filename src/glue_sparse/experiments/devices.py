"""What each of several runs side by side gets of this machine: cores, and GPUs of its own."""

import os
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module

from glue_sparse.experiments.cells import Cell

SHUTDOWN = 300
"""Seconds that a launcher gives its processes to finish a step and save a checkpoint when it is told to stop."""


def shared(count: int) -> dict[str, str]:
    """The environment of so many processes, which share the cores where they run side by side."""
    environment = dict(os.environ)
    if count > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    return environment


def environment(slot: int, jobs: int, num_processes: int = 1) -> dict[str, str]:
    """That of one run: a GPU for each process where there are so many, and in any case not those of another place.

    Args:
        slot: its place among the `jobs`, from 0.
        num_processes: that it has on this machine.
    """
    environment = shared(jobs * num_processes)
    if num_processes > 1:
        environment.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN))
    if gpus := _gpus():
        each = len(gpus) // jobs
        own = gpus[slot * each : (slot + 1) * each] if each else [gpus[slot % len(gpus)]]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(own[:num_processes])
    return environment


def check(cells: Iterable[Cell], jobs: int, num_machines: int = 1) -> None:
    """Raise a ValueError where processes that share their batches find too few GPUs here; none at all is as good."""
    for cell in cells:
        if cell.shared_by == 1 or cell.arguments.value("use_cpu") or not (gpus := _gpus()):
            continue
        needed = cell.shared_by // num_machines
        if needed > len(gpus) // jobs:
            side_by_side = f" for each of {jobs} `jobs`" if jobs > 1 else ""
            raise ValueError(f"{cell.name} takes {needed} GPUs{side_by_side}, one for each process, and here are "
                             f"{len(gpus)}: lower `num_processes`{' or `jobs`' if jobs > 1 else ''}")  # fmt: skip


def _gpus() -> list[str]:
    """Those that may be used, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [gpu for gpu in visible.split(",") if gpu != "-1"] if visible else _counted()


@lru_cache(maxsize=1)
def _counted() -> list[str]:
    """Numbers of the GPUs here; torch is loaded for this alone, and not where a table is only shown."""
    return [str(i) for i in range(import_module("torch").cuda.device_count())]
