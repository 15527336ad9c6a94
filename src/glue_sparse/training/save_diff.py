"""Checkpoints that are sparse diffs, under Trainers of other libraries and in loops of one's own with accelerate."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel
from torch import nn

from glue_sparse.core.parametrization import is_attached
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo, base_named_by, facts_of
from glue_sparse.training.sharded_trainer import ShardsBase


class SaveDiff(ShardsBase):
    """Put before a Trainer of transformers or trl, it saves the diff of an attached model in place of the model.

        class Trainer(SaveDiff, SFTTrainer): ...

    Checkpoints, and what `save_model` writes, hold `sparse_diff.safetensors` and a model card, no base and no
    tokenizer; `resume_from_checkpoint` and `load_best_model_at_end` take the model from there, bit for bit. It is no
    callback, since a Trainer asks none before it writes or reads weights. With `fsdp` ranks share out the frozen base.
    `SparseTrainer` needs none of this.
    """

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in the Trainer.

        Raises:
            ValueError: the model has no active entries.
        """
        _check(self.model)
        return super().train(*args, **kwargs)

    # Private to transformers 5: tests/training/test_private_hooks.py holds their names and parameters.

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            save(self.model, output_dir or self.args.output_dir or ".")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load(model or self.model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        load(self.model, str(self.state.best_model_checkpoint))


def save_diffs(accelerator: Accelerator) -> None:
    """Have `accelerator.save_state` write the diff of each attached model in place of it, and `load_state` read that.

    The first such model's is in the folder itself, those of others in `model_1` and so on. Models without active
    entries are saved as ever. Call it once, before either.

    Args:
        accelerator: of the loop; its models may be prepared before or after.
    """

    def save_hook(models: list[nn.Module], weights: list[Any], folder: str) -> None:
        for number, place in reversed(list(_places(models, folder))):
            weights.pop(number)
            if accelerator.is_main_process:
                save(models[number], place)

    def load_hook(models: list[nn.Module], folder: str) -> None:
        for number, place in reversed(list(_places(models, folder))):
            load(models.pop(number), place)

    accelerator.register_save_state_pre_hook(save_hook)
    accelerator.register_load_state_pre_hook(load_hook)


def save(model: nn.Module | None, folder: str | Path) -> None:
    """Write the diff of an attached model, and its card, into a folder.

    Raises:
        ValueError: the model has no active entries, or holds gates; a value is not finite.
    """
    network = _check(model)
    SparseDiff.from_model(network, DiffInfo(base_named_by(network), **facts_of(network))).save_pretrained(folder)


def load(model: nn.Module | None, folder: str | Path) -> None:
    """Give an attached model what `save` wrote of it.

    Raises:
        ValueError: the model has no active entries, or others; the folder has no diff, or one of another base.
    """
    SparseDiff.from_pretrained(folder).restore(_check(model))


def _check(model: nn.Module | None) -> nn.Module:
    network: Any = extract_model_from_parallel(model, keep_torch_compile=False)
    if not isinstance(network, nn.Module) or not is_attached(network):
        raise ValueError("this model has no active entries: call attach(model, masks) before it is trained")
    return network


def _places(models: list[nn.Module], folder: str) -> list[tuple[int, Path]]:
    """(number of an attached model, where its diff lies)."""
    attached = [n for n, one in enumerate(models) if is_attached(extract_model_from_parallel(one, False, False))]
    return [(n, Path(folder, f"model_{order}") if order else Path(folder)) for order, n in enumerate(attached)]
