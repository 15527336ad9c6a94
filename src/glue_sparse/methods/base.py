"""What an algorithm decides: which entries are active, what the others hold, and what else happens while training."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glue_sparse.core.active import Inactive, attach
from glue_sparse.core.batches import Batch
from glue_sparse.core.masks import Masks, Scores
from glue_sparse.costs.formulas import Rule
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo

Batches = Callable[[int], Iterable[Batch]]
"""num_samples -> collated batches of that many training examples in all, this rank's share of them."""
Combine = Callable[[Scores], Scores]
"""Scores of this rank's share of the examples -> scores of all of them."""


@dataclass(frozen=True)
class Moment:
    """Where training is."""

    step: int
    """The optimizer step under way, from 0."""
    num_steps: int
    """Optimizer steps of the whole run."""
    num_epochs: float | None
    """Passes over the data in the whole run; none where the data has no length."""
    optimizer: torch.optim.Optimizer
    head: tuple[str, ...]
    draw: Callable[[int, int], Iterable[Batch]]
    """(num_samples, number of the draw) -> batches of training examples, this rank's share of them."""
    combine: Combine


def alone(scores: Scores) -> Scores:
    """How a single process combines scores: it has seen all examples."""
    return scores


class SparseMethod:
    """Base of all methods: `prepare` has to be written, every other hook has a default."""

    inactive: Inactive = "frozen"
    """What inactive entries hold: their old value, or zero."""
    block_size: int = 1
    """Side of the square tiles that are active as a whole."""
    needs_data: bool = True
    """Whether the choice depends on data or chance; if not, all workers make it alike without being told."""
    moves: bool = False
    """Whether other entries become active while training."""
    refuses_merging: str = "this method has hooks that workers which train apart would not call"
    """Why workers that merge cannot train by it; empty where they can, so that a method has to say so."""
    refuses_shards: str = "this method chooses on the whole model: let it do so before the model is sharded"
    """Why `prepare` takes no model that `fully_shard` has cut; empty where it does."""
    refuses_again: str = ""
    """Why training cannot be called again after it has ended; empty where it goes on from what has been trained."""
    has_phases: bool = False
    """Whether how many entries are active differs between phases of a run."""
    without_fp16: bool = False
    """Whether scaled gradients, or steps left out, would break it."""

    def flops_rule(self, num_steps: int, num_epochs: float | None) -> tuple[Rule, int | None]:
        """Whose formula gives the FLOPs of a run so long, and its period of updates; see `formulas.training_flops`."""
        return ("static" if self.inactive == "zero" else "frozen"), None

    def check(self, model: nn.Module, head: tuple[str, ...], num_steps: int | None) -> None:
        """Raise a ValueError for what cannot work with this model, or in a run so long, before anything is written.

        Args:
            num_steps: optimizer steps of the run; none where data has no length.
        """

    def prepare(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone
    ) -> Masks:
        """Choose the active entries, once, before the optimizer exists.

        Args:
            model: plain, on its device; to be left as it is. Where `refuses_shards` is empty, also a copy that
                `fully_shard` has cut, to be thrown away; `combine` is not called then, since scores of shards are of
                all examples already.
            head: names of the parameters that train whole whatever happens.
            batches: data to choose by.
            combine: adds scores over ranks, where each sees a share of the batches.
        Returns:
            Masks of the tensors that do not train whole; the same on every rank.
        """
        raise NotImplementedError

    def prepare_shares(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, num_shares: int, number: int = 0
    ) -> list[Masks]:
        """Disjoint masks for `num_shares` workers, or a single one for all where the method has no shares to give.

        Asked only where `refuses_merging` is empty, and then nothing else is: workers call no other hook of a method.

        Args:
            number: of the choice, for what is random; 0 is the first.
        Raises:
            ValueError: the method refuses.
        """
        raise ValueError(self.refuses_merging)

    def attach(self, model: nn.Module, masks: Masks) -> None:
        """Make the model sparse: by default the chosen entries become its active entries."""
        attach(model, masks, self.inactive, self.block_size)

    def before_step(self, model: nn.Module, moment: Moment) -> None:
        """Called before the first micro-batch of each optimizer step."""

    def gradients_ready(self, model: nn.Module, moment: Moment) -> bool:
        """Called when a step's gradients are complete, and averaged over ranks; true leaves the step out."""
        return False

    def after_step(self, model: nn.Module, moment: Moment) -> None:
        """Called after the optimizer's step, with its gradients still there."""

    def penalty(self, model: nn.Module) -> Tensor | None:
        """A scalar to add to the training loss of each optimizer step."""
        return None

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameters with optimizer options of their own: `params`, any option, and the two below.

        `schedule: constant` keeps their learning rate while that of the others follows the scheduler. `clipped: apart`
        clips their gradients by a norm of their own, so that neither they nor the others scale each other.
        """
        return []

    def logs(self, model: nn.Module) -> dict[str, Any]:
        """Facts to log beside the training loss."""
        return {}

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """What results.json says of the active entries at the end, beside their number; see `Result.connections`."""
        return {}

    def finish(self, model: nn.Module, folder: Path | None) -> None:
        """Called after the last step; leaves a model with active entries.

        Args:
            folder: the run's, for what only this method has to say; none on ranks that do not write.
        """

    def save(self, model: nn.Module, info: DiffInfo, folder: Path) -> None:
        """Write a checkpoint's model: by default its sparse diff, since the base does not change."""
        SparseDiff.from_model(model, info).save_file(folder)

    def restore(self, model: nn.Module, head: tuple[str, ...], folder: Path) -> None:
        """Read what `save` wrote into a plain model, or into one that this method has attached."""
        SparseDiff.from_pretrained(folder).restore(model, block_size=self.block_size)
