"""Networks that are sparse from the start and whose active entries move: static, SET, SNFS, RigL, other rules."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from glue_sparse import budgets, moved
from glue_sparse.diff_file import DiffInfo
from glue_sparse.flops import Rule as FlopsRule
from glue_sparse.masks import Masks
from glue_sparse.methods.base import Batches, Combine, Moment, SparseMethod, alone
from glue_sparse.moving import Mover, explored_share
from glue_sparse.rewiring import RIGL, Rule
from glue_sparse.sparsify import VarianceOf, entry_counts, initial_masks, keep_variance


class DropGrow(SparseMethod):
    """Dynamic sparse training (arXiv 1707.04780, 1907.04840, 1911.11134): inactive entries are zero.

    Sparse are the matrices inside the layers of a transformer, and the weights of all linear, convolutional and
    recurrent layers of other networks; the head and all other tensors train whole.

    Args:
        rule: `rewiring.STATIC`, `SET`, `SNFS`, `RIGL`, or another `Rule`.
        density: active share of the entries of the sparse tensors, in (0, 1].
        distribution: how density differs between tensors; see `budgets.distribute`.
        power: of the formula of `er` and `erk`.
        densities: shell pattern -> density of the tensors it matches, which stand apart from the distribution.
        tensors: shell patterns of the tensors to make sparse, instead of the default.
        start: the first mask has each tensor's largest weights (`magnitude`, for pretrained models) or random ones.
        variance: rescale the weights that are left so that the variance of a layer's outputs (`fan_in`) or of the
            gradients of its inputs (`fan_out`) is that of the dense layer; for random weights.
        seed: for what is random.
    """

    inactive = "zero"

    def __init__(
        self,
        rule: Rule = RIGL,
        *,
        density: float = 0.1,
        distribution: str | budgets.Distribution = "uniform",
        power: float = 1.0,
        densities: Mapping[str, float] | None = None,
        tensors: Sequence[str] = (),
        start: Literal["magnitude", "random"] = "magnitude",
        variance: VarianceOf | None = None,
        seed: int = 0,
    ):
        self.rule, self.density, self.distribution, self.power = rule, density, distribution, power
        self.densities, self.tensors, self.seed = densities or {}, tuple(tensors), seed
        self.start: Literal["magnitude", "random"] = start
        self.variance: VarianceOf | None = variance
        self.needs_data, self.moves = False, rule.grow is not None
        self.without_fp16 = rule.gradients != "never" or rule.when == "replace"
        self._mover: Mover | None = None
        self._stored: dict[str, Any] = {}

    def flops_rule(self, num_steps: int, num_epochs: float | None) -> tuple[FlopsRule, int | None]:
        """See `SparseMethod.flops_rule`; RigL in a run too short for an update costs what a static mask does."""
        schedule = self.rule.schedule.in_steps(num_steps, num_epochs)
        if self.rule.kind == "rigl" and not schedule.num_updates:
            return "static", None
        return self.rule.kind, int(schedule.every)

    def prepare(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone
    ) -> Masks:
        """See `SparseMethod.prepare`; ValueError where a tensor would keep nothing, or a pattern matches nothing."""
        counts = entry_counts(
            model, head, self.density, self.distribution, self.power, self.densities, self.tensors
        )
        return initial_masks(model, counts, self.seed, self.start)

    def prepare_shares(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, num_shares: int
    ) -> list[Masks]:
        """Raises ValueError: workers would move their entries apart."""
        raise ValueError("entries that move cannot train as workers that merge: leave --merge_every out")

    def attach(self, model: nn.Module, masks: Masks) -> None:
        """See `SparseMethod.attach`."""
        super().attach(model, masks)
        if self.variance:
            keep_variance(model, self.variance)

    def before_step(self, model: nn.Module, moment: Moment) -> None:
        """See `SparseMethod.before_step`."""
        if self._mover is None or moment.step == 0:
            self._mover = Mover(self.rule, moment.num_steps, self.seed, moment.num_epochs)
            self._mover.load_state(model, self._stored)
        self._mover.before_step(model, moment.step)

    def gradients_ready(self, model: nn.Module, moment: Moment) -> bool:
        """See `SparseMethod.gradients_ready`."""
        assert self._mover is not None
        return self._mover.gradients_ready(model, moment.step, moment.optimizer)

    def after_step(self, model: nn.Module, moment: Moment) -> None:
        """See `SparseMethod.after_step`."""
        assert self._mover is not None
        self._mover.after_step(model, moment.step, moment.optimizer)

    def logs(self, model: nn.Module) -> dict[str, Any]:
        """The share of the sparse tensors' entries that have been active so far."""
        return {"explored": explored_share(model)}

    def save(self, model: nn.Module, info: DiffInfo, folder: Path) -> None:
        """See `SparseMethod.save`."""
        moved.save(model, info, folder, self._mover.state() if self._mover else self._stored)

    def restore(self, model: nn.Module, head: tuple[str, ...], folder: Path) -> None:
        """See `SparseMethod.restore`."""
        self._stored, self._mover = moved.restore(model, folder), None


def with_changes(rule: Rule, **changes: Any) -> Rule:
    """A rule with some of its own or its schedule's fields replaced; a value of None changes nothing."""
    given = {key: value for key, value in changes.items() if value is not None}
    schedule = {key: given.pop(key) for key in list(given) if hasattr(rule.schedule, key)}
    return replace(rule, **given, schedule=replace(rule.schedule, **schedule))
