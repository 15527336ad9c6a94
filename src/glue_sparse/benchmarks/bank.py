"""Measures many tasks beside one model: `glue-sparse benchmark --bank`; each part is a module that gives a page."""

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from glue_sparse.benchmarks import bank_mixed, bank_sizes, bank_swaps
from glue_sparse.benchmarks.training import DEVICE, peft_library
from glue_sparse.writing.files import json_text


class Told(NamedTuple):
    """What the command line says: counted rounds, whose texts, and whether the large model is left out."""

    steps: int
    task: str
    data_dir: str | None
    quick: bool


class Part(NamedTuple):
    """Tables as text, and their numbers."""

    page: str
    facts: dict[str, Any]


PARTS: dict[str, Callable[[Told], Part]] = {
    "sizes": lambda told: Part(*bank_sizes.measured(told.steps, bank_mixed.found(bank_mixed.RUNS))),
    "swaps": lambda told: Part(*bank_swaps.measured(told.steps, told.task, told.data_dir, told.quick)),
    "mixed": lambda told: Part(*bank_mixed.measured(told.steps, told.quick)),
}
"""Name of each part in the file of numbers -> what measures it."""


def run(told: Told, out: str | None) -> None:
    """Print all tables, and write all numbers as JSON; ValueError where peft is not installed."""
    versions = {"python": platform.python_version(), "torch": torch.__version__,
                "transformers": transformers.__version__, "peft": peft_library().__version__}  # fmt: skip
    facts: dict[str, Any] = {"device": DEVICE.type, "threads": torch.get_num_threads(), "cores": os.cpu_count(),
                             "versions": versions}  # fmt: skip
    for name, measure in PARTS.items():
        page, facts[name] = measure(told)
        print(f"{page}\n", flush=True)
    print(f"{DEVICE.type}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
          + ", ".join(f"{name} {version}" for name, version in versions.items()))  # fmt: skip
    if out:
        Path(out).write_text(json_text(facts, out), encoding="utf-8")
