"""A Trainer that can be stopped anywhere: evaluation changes nothing, and a checkpoint holds all that is needed."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from glue_sparse.core import ranks
from glue_sparse.core.randomness import chance_kept, seed_of
from glue_sparse.records import checkpoints
from glue_sparse.training.epoch_ends import EpochEnds
from glue_sparse.writing import fields
from glue_sparse.writing.ending import is_ours

logger = logging.getLogger(__name__)

_SUMS = "ResumableTrainer"
"""Where a Trainer's state keeps what it has summed up; it has room for what is not its own among callbacks alone."""


@dataclass(frozen=True)
class Sums:
    """What a Trainer sums up over a run, and keeps for itself."""

    first_step: int
    loss: float
    loss_since_logged: float
    last_logged: int
    seconds: float
    num_examples: int = 0
    """Of an optimizer step, over all ranks; older checkpoints do not say."""


class ResumableTrainer(Trainer):
    """Trainer of which a run that is stopped and resumed ends as an uninterrupted one; abstract.

    Beside the weights, which its subclass saves and restores, that are the random states, which evaluation and
    prediction leave as they were, the sums of the losses, and what is due at a step (`epoch_ends`).
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.args.device.type in ("cpu", "mps"):
            self.args.dataloader_pin_memory = False  # has no effect there but a warning of torch's at each loader
        self.add_callback(EpochEnds())
        self.add_callback(_RestoreSums(self))
        self._best: str | None = None
        self._has_other_ranks = False
        self._began = 0.0
        """When training would have begun if it had never been stopped, once it has."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in `Trainer`; random numbers go on as if it had not been."""
        with chance_kept():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`; random numbers go on as if it had not been."""
        with chance_kept():
            return super().predict(*args, **kwargs)

    # Private to transformers 5: tests/training/test_private_hooks.py holds their names and parameters.

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        """As in `Trainer`, except that a resumed run is not at its start (`eval_on_start`)."""
        if skip_scheduler and self.state.global_step:
            return {}
        return super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As in `Trainer`; the list of all files comes last and says that the checkpoint is complete."""
        folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
        if self.args.should_save:
            checkpoints.begin(folder)
        ranks.wait()
        kept: Any = self.state.stateful_callbacks
        kept[_SUMS] = asdict(self._sums())
        super()._save_checkpoint(model, trial)
        ranks.wait()
        if self.args.should_save:
            checkpoints.seal(folder)

    def _sums(self) -> Sums:
        since_logged = self._tr_loss.detach().clone()
        ranks.average(since_logged)
        return Sums(
            self._initial_global_step, self._total_loss_scalar, since_logged.item(), self._globalstep_last_logged,
            time.time() - self._began, self._num_examples,
        )  # fmt: skip

    @property
    def _num_examples(self) -> int:
        return self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size

    def _restore_sums(self, sums: Sums) -> None:
        self._initial_global_step, self._globalstep_last_logged = sums.first_step, sums.last_logged
        self._total_loss_scalar = sums.loss
        self._tr_loss = torch.full_like(self._tr_loss, sums.loss_since_logged)
        self._began -= sums.seconds

    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: float) -> Any:
        """As in `Trainer`, with the mean loss and the speed of the whole run."""
        return super()._finalize_training(trial, num_train_samples, self._began)

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: Any,
        trial: Any,
    ) -> tuple[int, int]:
        """As in `Trainer`; a run that was stopped after its last step has no epoch left, and trains no further."""
        begun = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if resume_from_checkpoint is None:
            return begun
        self.state.best_model_checkpoint = self._best
        if self.state.global_step < max_steps:
            return begun
        self._load_rng_state(resume_from_checkpoint)
        return num_train_epochs, 0

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """See that the checkpoint is whole, and the best one so far too; a subclass then loads the model."""
        folder = Path(resume_from_checkpoint)
        checkpoints.check(folder)
        with _readable(folder, checkpoints.STATE):
            state = TrainerState.load_from_json(str(folder / checkpoints.STATE))
        self._check_division(folder, state)
        self._best = None if state.best_model_checkpoint is None else self._find(state.best_model_checkpoint, folder)

    def _check_division(self, folder: Path, state: TrainerState) -> None:
        """Other ranks than before must go through the same examples in each step."""
        callbacks: Any = state.stateful_callbacks or {}
        count, kept = checkpoints.num_ranks(folder), callbacks.get(_SUMS)
        self._has_other_ranks = count != self.args.world_size
        if not self._has_other_ranks or any(folder.glob("worker*.safetensors")):
            return
        was = fields.typed(Sums, kept, f"what {checkpoints.STATE} has summed up").num_examples if kept else 0
        if was != self._num_examples:
            raise ValueError(f"{folder} is of {count} processes with {was or 'an unknown number of'} examples in each "
                             f"step, and these {self.args.world_size} would take {self._num_examples}: change "
                             "`per_device_train_batch_size` or `gradient_accumulation_steps`")  # fmt: skip
        logger.warning("%s is of %d processes: their random states go to none of these %d, which begin new ones, so "
                       "that dropout differs from that of an uninterrupted run", folder, count,
                       self.args.world_size)  # fmt: skip

    def _find(self, best: str, folder: Path) -> str | None:
        """Where the best checkpoint lies: beside the one that is resumed, since the run's folder may have moved."""
        beside = folder.parent / Path(best).name
        path = beside if beside.is_dir() else Path(best)
        if not self.args.load_best_model_at_end:
            return str(path) if path.is_dir() else None
        if not path.is_dir():
            raise ValueError(f"{best}, the best checkpoint when {folder} was written, is gone: {checkpoints.OTHERWISE}")
        checkpoints.check_unchanged(path)
        return str(path)

    def _load_best_model(self) -> None:
        """See that the best checkpoint is whole; a subclass then loads the model."""
        checkpoints.check_unchanged(Path(str(self.state.best_model_checkpoint)))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _readable(checkpoint, "the optimizer or the schedule"):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self._has_other_ranks:
            set_seed(seed_of(self.args.seed, "ranks", self.state.global_step, self.args.process_index) % 2**32)
            return
        with _readable(checkpoint, "the random state"):
            super()._load_rng_state(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with _readable(checkpoint, "scaler.pt"):
            super()._load_scaler(checkpoint)


class _RestoreSums(TrainerCallback):
    def __init__(self, trainer: ResumableTrainer):
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called when the Trainer has set its sums to zero; checkpoints of older versions have none."""
        self.trainer._began = time.time()
        kept: Any = state.stateful_callbacks
        if sums := kept.get(_SUMS):
            self.trainer._restore_sums(fields.typed(Sums, sums, f"what {checkpoints.STATE} has summed up"))


@contextmanager
def _readable(checkpoint: Any, what: str) -> Iterator[None]:
    """Whatever goes wrong while a checkpoint's file is read is the file's: it is of another kind, or another run."""
    try:
        yield
    except Exception as error:
        if is_ours(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        reason = type(error).__name__
        raise ValueError(f"{what} of checkpoint {checkpoint} cannot be used here ({reason}): "
                         f"{checkpoints.OTHERWISE}") from error  # fmt: skip
