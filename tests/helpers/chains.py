"""Trainings that write delta checkpoints, beside full copies of the model, as the tests of deltas need them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from glue_sparse import FixedMask, SparseTrainer, noise
from glue_sparse.core.digests import bits
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.diffs.deltas import FOLDER
from glue_sparse.training.delta_checkpoints import DeltaCheckpoints
from training import StopAt, trainer

SAVING: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4}


class Copies(TrainerCallback):
    """A full copy of the model at every save, and at the end."""

    def __init__(self, model: nn.Module):
        self.model, self.at = model, {}

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at[state.global_step] = copy_of(self.model)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at.setdefault(state.global_step, copy_of(self.model))


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in current_tensors(model).items()}


def same(model: nn.Module, wanted: dict[str, Tensor]) -> bool:
    found = current_tensors(model)
    return found.keys() == wanted.keys() and all(torch.equal(bits(found[n]), bits(t)) for n, t in wanted.items())


def watched(run: SparseTrainer) -> tuple[DeltaCheckpoints, Copies]:
    checkpoints, copies = DeltaCheckpoints(run), Copies(run.network)
    run.add_callback(checkpoints)
    run.add_callback(copies)
    return checkpoints, copies


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / FOLDER).iterdir()}


def noisy(folder: Path, model: nn.Module | None = None, **changes: Any) -> SparseTrainer:
    return trainer(folder, model, FixedMask(noise, density=0.05), **{**SAVING, **changes})


class SaveAndStopAt(StopAt):
    """Ends training after a step with a checkpoint, as a signal does."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        control.should_save |= state.global_step == self.step
        return super().on_step_end(args, state, control, **kwargs)
