"""A small grid, and results as its runs would write them."""

from pathlib import Path
from typing import Any

import yaml

from glue_sparse.experiments import grids
from glue_sparse.records import folder, results
from glue_sparse.records.results import Result

SMALL: dict[str, Any] = {
    "title": "small",
    "base": {"model": "minilm", "num_train_epochs": 2},
    "rows": {"random": {"method": "random"}, "long": {"method": "dense", "num_train_epochs": 3}},
    "columns": {"rte": {"task": "rte"}, "cola": {"task": "cola", "num_train_epochs": 1}},
    "seeds": [0, 1],
}
COST = {"trainable": 5, "num_entries": 1000, "stored_bytes": 100, "masked_entries": 0, "zero_entries": 0,
        "sparsity": 0.0, "model_sparsity": 0.0}  # fmt: skip


def write(folder: Path, **changes: Any) -> Path:
    """A grid's YAML, SMALL with changes; a change to None leaves the key out."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in {**SMALL, **changes}.items() if v is not None}, sort_keys=False))
    return path


def read(folder: Path, **changes: Any) -> grids.Grid:
    return grids.read(write(folder, **changes), output_dir=folder / "runs")


def finished(cell: grids.Cell, score: float = 0.5, metric: str = "accuracy", **changes: Any) -> Result:
    """A result as a run of this cell would write it, written to its folder."""
    arguments = cell.arguments
    result = Result(
        task=str(arguments.task.task), title=str(arguments.task.task).upper(), method=arguments.method.method,
        density=None, seed=cell.seed, model="minilm", main_metric=metric,
        metrics={"validation": {metric: score}}, arguments={**arguments.given, "world_size": 1},
        **{"history": [], "source": {}, "command": "", "date": "", "seconds": {"choose": 1.0, "train": 2.0},
           **changes, "cost": {**COST, **changes.get("cost", {})}},
    )  # fmt: skip
    results.write(result, cell.folder)
    return result


def diverged(cell: grids.Cell) -> None:
    """What a run of this cell leaves if its training diverges."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    folder.mark_diverged(cell.folder, "the loss of step 3 is not finite")
