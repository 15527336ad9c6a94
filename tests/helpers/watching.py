"""Moving entries watched while they train, and whether two runs ended alike."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from glue_sparse import SparseTrainer
from glue_sparse.core.active import active_tensors, current_masks
from glue_sparse.core.masks import Masks
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.methods.moving.drop_grow import DropGrow, with_changes
from glue_sparse.methods.moving.rules import PRESETS
from networks import bert
from training import trainer


def method(name: str, **changes: Any) -> DropGrow:
    every = changes.pop("every", 2)
    return DropGrow(with_changes(PRESETS[name], every=every, **changes), density=0.2, seed=3)


class Watch(TrainerCallback):
    """Copies masks and weights before each optimizer step and after it."""

    def __init__(self) -> None:
        self.run: Any = None
        self.before: list[tuple[Masks, dict[str, Tensor]]] = []
        self.after: list[tuple[Masks, dict[str, Tensor]]] = []

    def _seen(self) -> tuple[Masks, dict[str, Tensor]]:
        return current_masks(self.run.network), {n: t.clone() for n, t in current_tensors(self.run.network).items()}

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.before.append(self._seen())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.after.append(self._seen())


def watched(folder: Path, how: Any, **changes: Any) -> tuple[SparseTrainer, Watch]:
    """A run of a method on a small BERT, and what was seen of it."""
    watch = Watch()
    run = trainer(folder, bert(), how, callbacks=[watch], **changes)
    watch.run = run
    run.train()
    return run, watch


def equal_runs(one: SparseTrainer, other: SparseTrainer) -> None:
    first, second = current_tensors(one.network), current_tensors(other.network)
    assert all(torch.equal(first[n], second[n]) for n in first)
    pairs = zip(active_tensors(one.network), active_tensors(other.network), strict=True)
    for (name, entries), (_, again) in pairs:
        assert torch.equal(entries.indices, again.indices), name
        assert entries.num_explored == again.num_explored
        states: list[Any] = [one.optimizer.state[entries.values], other.optimizer.state[again.values]]  # type: ignore
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    diffs = [run.sparse_diff() for run in (one, other)]
    assert diffs[0].digest() == diffs[1].digest()
