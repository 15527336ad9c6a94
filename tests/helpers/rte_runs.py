"""Short runs on a small RTE, as from the command line."""

from pathlib import Path
from typing import Any

from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.experiments.run import run
from glue_sparse.experiments.told import parse
from glue_sparse.records.results import Result


def go(base: str, rte: Path, out: Path, *more: str) -> Result:
    settings: dict[str, Any] = {
        "task": "rte", "model": base, "data_dir": rte, "num_train_epochs": 4, "per_device_train_batch_size": 8,
        "disable_tqdm": "true", "output_dir": out, "learning_rate": 0.01, "eval_strategy": "no", "logging_steps": 4,
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return run(parse([*words, *more], config=DEFAULTS))
