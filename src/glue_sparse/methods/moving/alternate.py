"""Phases in which all entries train, and phases in which only some do (Dietrich et al., 2021, arXiv 2108.06277)."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from glue_sparse.core.active import active_tensors
from glue_sparse.core.masks import Masks, select
from glue_sparse.core.options import Entrants, Inactive
from glue_sparse.core.parametrization import original
from glue_sparse.core.randomness import seed_of, seeded
from glue_sparse.core.reindexing import reindex
from glue_sparse.core.stored import check_like
from glue_sparse.costs.formulas import Rule
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.methods.base import Batches, Combine, Moment, SparseMethod, alone
from glue_sparse.methods.moving import checkpoint as moved
from glue_sparse.methods.moving import phases
from glue_sparse.methods.moving.phases import First, Phases
from glue_sparse.methods.moving.start import entry_counts
from glue_sparse.writing.words import check_one_of

Selection = Literal["fixed", "magnitude", "random"]


class Alternate(SparseMethod):
    """A run cut into equal phases that are by turns dense and sparse (Dietrich et al., 2021, figure 1b and table A.16).

    Two phases are its "freeze" (dense first) and "unfreeze" (sparse first); 160 with `inactive="zero"` are like AC/DC
    (Peste et al., 2021, arXiv 2106.12379). The sparse tensors are those of `DropGrow`. A switch happens before the
    first step of a phase, so that a checkpoint, an evaluation and the final model hold the phase that ends there.

    Args:
        num_phases: how many phases there are, at least 2.
        first: whether the first is `dense` or `sparse`.
        density: active share of each sparse tensor in the sparse phases, in (0, 1].
        selection: which entries are active then: `fixed`, the same random ones in all phases; `magnitude`, each
            tensor's largest at the start of the phase; `random`, others in each phase.
        inactive: what the other entries hold in sparse phases: `zero`, or `frozen`, the value they had.
        tensors: shell patterns of the tensors to make sparse, instead of the default.
        block_size: side of the square tiles that are chosen as a whole.
        entrants: what mean squared gradients of entries that begin to train again start from: the `mean` of the
            others', or `zero`.
        seed: for what is random.
    Raises:
        ValueError: an option that is not one of these.
    """

    needs_data = False
    moves = has_phases = True
    refuses_merging = "phases cannot train as workers that merge, which would choose apart"

    def __init__(
        self,
        num_phases: int = 2,
        *,
        first: First = "dense",
        density: float = 0.1,
        selection: Selection = "fixed",
        inactive: Inactive = "zero",
        tensors: Sequence[str] = (),
        block_size: int = 1,
        entrants: Entrants = "mean",
        seed: int = 0,
    ):
        phases.check(num_phases, first)
        check_one_of("selection", selection, get_args(Selection))
        self.num_phases, self.density, self.tensors, self.seed = num_phases, density, tuple(tensors), seed
        self.first: First = first
        self.selection: Selection = selection
        self.inactive: Inactive = inactive
        self.block_size = block_size
        self.entrants: Entrants = entrants
        self._counts: dict[str, int] = {}
        self._densities: dict[str, float] = {}

    def flops_rule(self, num_steps: int, num_epochs: float | None) -> tuple[Rule, int | None]:
        """See `SparseMethod.flops_rule`: the mean over the phases."""
        run = Phases(self.num_phases, self.first, num_steps)
        mean = partial(phases.mean_training_flops, densities=self._densities, phases=run, inactive=self.inactive)
        return mean, None

    def check(self, model: nn.Module, head: tuple[str, ...], num_steps: int | None) -> None:
        """See `SparseMethod.check`: tiles or a density that do not fit a tensor, more phases than steps."""
        self._entry_counts(model, head)
        if num_steps is not None:
            Phases(self.num_phases, self.first, num_steps)

    def prepare(self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone) -> Masks:
        """Masks of the first phase; see `SparseMethod.prepare`, and `DropGrow.prepare` for errors."""
        counts = self._entry_counts(model, head)
        weights = {name: model.get_parameter(name) for name in counts}
        self._remember(counts, {name: weight.numel() for name, weight in weights.items()})
        dense = self.first == "dense"
        return {name: self._mask(name, weight.detach(), 0, dense) for name, weight in weights.items()}

    def _entry_counts(self, model: nn.Module, head: tuple[str, ...]) -> dict[str, int]:
        return entry_counts(model, head, self.density, "uniform", 1.0, {}, self.tensors, self.block_size)

    def before_step(self, model: nn.Module, moment: Moment) -> None:
        """Switch where a phase begins, the first too where a run trains on; ValueError for more phases than steps."""
        run = Phases(self.num_phases, self.first, moment.num_steps)
        phase = run.starting(moment.step)
        if phase is None or phase == 0 and self._is_dense(model) == run.is_dense(0):
            return
        for name, entries in active_tensors(model):  # one at a time: scores are as large as the tensors
            weight = entries.current(original(model, name))
            mask = self._mask(name, weight, phase, run.is_dense(phase))
            reindex(model, {name: mask}, moment.optimizer, self.entrants)

    def _is_dense(self, model: nn.Module) -> bool:
        """Whether all entries train now; a run that trains on may begin with the other kind of phase."""
        return all(entries.num_active == entries.shape.numel() for _, entries in active_tensors(model))

    def logs(self, model: nn.Module) -> dict[str, Any]:
        """The share of the sparse tensors' entries that train at present."""
        found = [(entries.num_active, entries.shape.numel()) for _, entries in active_tensors(model)]
        return {"active": sum(active for active, _ in found) / max(1, sum(size for _, size in found))}

    def save(self, model: nn.Module, info: DiffInfo, folder: Path) -> None:
        """See `SparseMethod.save`."""
        counts = {f"count/{name}": torch.tensor(count) for name, count in self._counts.items()}
        moved.save(model, info, folder, counts)

    def restore(self, model: nn.Module, head: tuple[str, ...], folder: Path) -> None:
        """See `SparseMethod.restore`."""
        stored = moved.restore(model, folder, self.block_size, _check_counts)
        counts = {key.removeprefix("count/"): int(count) for key, count in stored.items()}
        self._remember(counts, {name: entries.shape.numel() for name, entries in active_tensors(model)})

    def _remember(self, counts: dict[str, int], sizes: dict[str, int]) -> None:
        self._counts, self._densities = counts, {name: count / sizes[name] for name, count in counts.items()}

    def _mask(self, name: str, weight: Tensor, phase: int, dense: bool) -> Tensor:
        """The entries of a tensor that are active in a phase."""
        if dense:
            return torch.ones_like(weight, dtype=torch.bool)
        if self.selection == "magnitude":
            score = weight.abs()
        else:
            seed = seed_of(self.seed, "phase", phase) if self.selection == "random" else self.seed
            score = torch.rand(weight.shape, generator=seeded(seed, "noise", name))
        return select({name: score}, {name: self._counts[name]}, block_size=self.block_size)[name]


def _check_counts(tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Raise a ValueError unless each tensor has its number of active entries, and nothing else is there."""
    if differing := tensors.keys() ^ {f"count/{name}" for name in shapes}:
        raise ValueError(f"{min(differing)} is in the file or in the model alone")
    for name, shape in shapes.items():
        count = tensors[f"count/{name}"]
        check_like(f"count/{name}", count, (), torch.int64)
        if not 0 <= int(count) <= shape.numel():
            raise ValueError(f"{name} cannot have {int(count)} active entries")
