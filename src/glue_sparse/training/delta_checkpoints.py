"""Delta checkpoints of a training: one small file whenever the trainer saves, and the whole training in all of them."""

from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from glue_sparse.core.active import ActiveEntries
from glue_sparse.core.parametrization import current_tensors, held_tensors
from glue_sparse.diffs import deltas
from glue_sparse.training.trainer import SparseTrainer


class DeltaCheckpoints(TrainerCallback):
    """Writes a delta whenever `trainer` saves, and at the end: `trainer.add_callback(DeltaCheckpoints(trainer))`.

    Args:
        trainer: before `train` or `choose`, since its model's tensors are copied as the base.
    """

    def __init__(self, trainer: SparseTrainer):
        self.trainer, folder = trainer, Path(str(trainer.args.output_dir))
        # ranks that do not write need no copy of the model
        writes = trainer.args.should_save
        self.chain = deltas.DeltaChain(trainer.network, folder, trainer.head, trainer.info) if writes else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the chain, or go on with it where a run is resumed."""
        if any(not isinstance(held, ActiveEntries) for _, held in held_tensors(self.trainer.network)):
            raise ValueError("learning gates changes every weight at every step, so its deltas would not be small")
        if self.chain is None:
            return
        if state.global_step:
            self.chain.resume(self.trainer.network, state.global_step, due=_is_due(args, state))
        else:
            self.chain.begin()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called after a checkpoint is written."""
        if self.chain is not None and state.global_step not in self.chain.links:
            self.chain.append(self.trainer.network, state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called once, after the best model was loaded where that was asked for."""
        self.finish(self.trainer.network, state.global_step)

    def finish(self, model: nn.Module, step: int) -> None:
        """See that the last state is in the chain; a best model is there already, at its own step."""
        if self.chain is None or step in self.chain.links:
            return
        if deltas.state_digest(current_tensors(model)) not in self.chain.links.values():
            self.chain.append(model, step)

    def facts(self) -> dict[str, Any]:
        """Counts and bytes for results.json; empty on ranks that do not write.

        `dense_bytes` is what one checkpoint of the whole model takes, `changed_entries_total` counts the entries that
        any delta stores.
        """
        if self.chain is None:
            return {}
        found = [*deltas.sizes(self.chain.folder).values()]
        return {
            "count": len(found),
            "bytes_total": sum(found),
            "bytes_mean": sum(found) / max(1, len(found)),
            "bytes_max": max(found, default=0),
            "dense_bytes": self.chain.dense_bytes,
            "changed_entries_total": deltas.changed_entries(self.chain.folder),
        }


def _is_due(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether an uninterrupted run saves at this step too; a run that is stopped also saves where it stops."""
    step = state.global_step
    if step >= state.max_steps:
        return True
    if args.save_strategy == SaveStrategy.STEPS:
        return state.save_steps > 0 and step % state.save_steps == 0
    if args.save_strategy == SaveStrategy.EPOCH:
        return float(state.epoch or 0).is_integer()
    return args.save_strategy == SaveStrategy.BEST and state.best_global_step == step
