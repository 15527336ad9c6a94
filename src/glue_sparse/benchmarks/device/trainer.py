"""A run of SparseTrainer on the device: stopped and resumed it ends as an uninterrupted one, and the base stays."""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments, default_data_collator

from glue_sparse.benchmarks.device.part import Part, Table, Told
from glue_sparse.benchmarks.limits import paths
from glue_sparse.benchmarks.limits.costs import Size
from glue_sparse.benchmarks.machine import DEVICE
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.methods.base import SparseMethod
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.methods.gates.diff_gates import DiffGates
from glue_sparse.methods.moving.drop_grow import DropGrow
from glue_sparse.methods.moving.rules import RIGL
from glue_sparse.methods.schedules import Schedule
from glue_sparse.scores.fisher import fisher
from glue_sparse.training.trainer import SparseTrainer

STEPS, STOP = 4, 2
MOST = 1e-3
"""Distance of values of a resumed run: sums on a GPU may be formed in another order each time."""

_OFTEN = replace(RIGL, schedule=Schedule(every=1))


class StopAt(TrainerCallback):
    """Ends training after a step, as if the process had been stopped there."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Called after each step."""
        control.should_training_stop = state.global_step == self.step
        return control


def run(told: Told) -> Part:
    """FISH resumed and uninterrupted, then one run each of gates and of entries that move."""
    size = paths.SMALL if told.quick else Size(4, 512, 8, 2048, 30522, 16, 128)
    with tempfile.TemporaryDirectory() as folder:
        base = {name: p.detach().cpu().clone() for name, p in paths.bert(size).named_parameters()}
        made = trainer(size, Path(folder, "whole"), _fish())
        made.train()
        whole = made.sparse_diff()
        touched, off = changed(whole, base, made), resumed(size, Path(folder, "parts"), whole)
        ends = {name: _ends(size, Path(folder, name), method)
                for name, method in (("gates", DiffGates()), ("rigl", DropGrow(_OFTEN, density=0.5)))}  # fmt: skip
    facts = {"entries": whole.num_active, "inactive_changed": touched, "off": off, "ends": ends}
    lines = [("inactive entries that changed", str(touched)), ("distance of a resumed run", f"{off:.1e}"),
             *((f"active entries after {name}", f"{count:,}") for name, count in ends.items())]  # fmt: skip
    problems = [f"{touched} inactive entries changed"] if touched else []
    problems += [f"a resumed run is off by {off:.1e}"] if not off <= MOST else []
    title = f"SparseTrainer, {STEPS} steps of 2 micro-batches, {DEVICE.type}; FISH, {whole.num_active:,} active entries"
    return Part([Table(title, ("what", "found"), lines)], facts, "; ".join(problems))


def _fish() -> SparseMethod:
    return FixedMask(partial(fisher, progress=False), density=0.01, num_samples=8)


def trainer(size: Size, folder: Path, method: SparseMethod, **changes: Any) -> SparseTrainer:
    """Of a random BERT on random tokens; checkpoints at every step."""
    batch = {name: value.cpu() for name, value in paths.batch_of(size._replace(rows=8 * size.rows)).items()}
    rows = [{name: value[i] for name, value in batch.items()} for i in range(8 * size.rows)]
    settings: dict[str, Any] = {
        "per_device_train_batch_size": size.rows, "gradient_accumulation_steps": 2, "max_steps": STEPS,
        "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 1, "logging_strategy": "no",
        "disable_tqdm": True, "report_to": "none", "use_cpu": DEVICE.type == "cpu", "logging_nan_inf_filter": False,
    }  # fmt: skip
    callbacks = changes.pop("callbacks", None)
    return SparseTrainer(
        paths.bert(size), TrainingArguments(output_dir=str(folder), **{**settings, **changes}), method=method,
        train_dataset=rows, data_collator=default_data_collator, callbacks=callbacks,
    )  # fmt: skip


def changed(diff: SparseDiff, base: dict[str, Tensor], made: Any) -> int:
    """Entries outside of the diff that are not as before, of the tensors that it holds entries of."""
    count, after = 0, made.network.state_dict()
    for name, indices in diff.indices.items():
        path, _, last = name.rpartition(".")
        held = after[name] if name in after else after[f"{path}.parametrizations.{last}.original"]
        moved = held.detach().cpu().flatten() != base[name].flatten()
        moved[indices.long()] = False
        count += int(moved.sum())
    return count


def resumed(size: Size, folder: Path, whole: SparseDiff) -> float:
    """The largest distance of a resumed run's values from those of `whole`; infinite with other masks."""
    trainer(size, folder, _fish(), callbacks=[StopAt(STOP)]).train()
    again = trainer(size, folder, _fish())
    again.train(resume_from_checkpoint=str(folder / f"checkpoint-{STOP}"))
    found = again.sparse_diff()
    if any(not torch.equal(found.indices[name], places) for name, places in whole.indices.items()):
        return float("inf")
    pairs = [(found.values[name], one) for name, one in whole.values.items() if len(one)]
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)


def _ends(size: Size, folder: Path, method: SparseMethod) -> int:
    made = trainer(size, folder, method, save_strategy="no")
    made.train()
    return made.sparse_diff().num_active
