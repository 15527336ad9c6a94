"""What `glue-sparse benchmark` does."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from glue_sparse.benchmarks import bank as banks
from glue_sparse.benchmarks import folding as folds
from glue_sparse.benchmarks import gradients as ways
from glue_sparse.benchmarks import large as phases
from glue_sparse.benchmarks import selecting, tiles
from glue_sparse.benchmarks import sharded as ranks
from glue_sparse.benchmarks import time_to_loss_page as times
from glue_sparse.benchmarks.device import run as checks
from glue_sparse.benchmarks.fisher import compare_fisher
from glue_sparse.benchmarks.limits import run as floors
from glue_sparse.benchmarks.training import train
from glue_sparse.tasks import registry as tasks

PARTS: dict[str, Callable[[Namespace], None]] = {
    "large": lambda told: phases.run(told.large, told.dtype or "float32", told.steps, told.out),
    "sharded": lambda told: ranks.run(told.num_processes or 2, told.hidden_size or 128, told.steps, told.out),
    "limits": lambda told: floors.run(told.steps, told.bf16, told.quick, told.out),
    "device_check": lambda told: checks.run(told.out, told.quick, told.chunk, told.steps),
    "folding": lambda told: folds.run(told.steps),
    "gradients": lambda told: ways.compare(told.steps),
    "select": lambda told: selecting.run(told.select),
    "time_to_loss": lambda told: times.run(told.quick, told.data_dir, told.out),
    "block_sparse": lambda told: tiles.run(told.quick),
    "bank": lambda told: banks.run(banks.Told(told.steps, told.task, told.data_dir, told.quick), told.out),
    "fisher": lambda told: compare_fisher(told.task, told.data_dir),
    "training": lambda told: train(told.steps, told.bf16),
}
"""What can be asked for -> how it is measured."""
EFFECTS = {
    "quick": ("block_sparse", "bank", "time_to_loss", "limits", "device_check"),
    "out": ("large", "sharded", "bank", "time_to_loss", "limits", "device_check"),
    "dtype": ("large",),
    "chunk": ("device_check",),
    "num_processes": ("sharded",),
    "hidden_size": ("sharded",),
}
"""A flag -> the parts that it says something to."""


def run(**given: Any) -> None:
    """Measure what is asked for, by default training and the Fisher."""
    told = Namespace(**given)
    asked = [name for name in PARTS if given[name]] or ["training", "fisher"]
    for name, parts in EFFECTS.items():
        if given[name] and not {*parts} & {*asked}:
            *most, last = (f"`{part}`" for part in parts)
            wanted = f"{', '.join(most)} or {last}" if most else last
            raise ValueError(f"`{name}` has no effect without {wanted}: leave it out, or give that")
    tasks.find(told.task)  # before minutes of training
    for name in asked:
        PARTS[name](told)
