"""A SparseTrainer on a tiny BERT, as several tests need it."""

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainingArguments

from glue_sparse import FixedMask, SparseTrainer, fisher
from networks import bert, collate, examples

ROWS = [{**row, "note": "a column no model knows"} for row in examples(48)]


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 1e-2, "weight_decay": 0.1,
        "max_grad_norm": 0.5, "use_cpu": True, "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True,
        "report_to": "none", "seed": 0,
    }  # fmt: skip
    return TrainingArguments(output_dir=str(folder), **{**settings, **changes})


def trainer(folder: Path, model: nn.Module | None = None, method: Any = None, **changes: Any) -> SparseTrainer:
    method = method or FixedMask(partial(fisher, progress=False), density=0.05, num_samples=16)
    callbacks = changes.pop("callbacks", None)
    return SparseTrainer(
        model or bert(), arguments(folder, **changes), method=method, train_dataset=ROWS, eval_dataset=ROWS[:16],
        data_collator=collate, callbacks=callbacks,
    )  # fmt: skip


class StopAt(TrainerCallback):
    """Ends training after a step, as if the process had been stopped there."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        control.should_training_stop = state.global_step == self.step
        return control
