"""Networks that are sparse from the start and whose active entries move: static, SET, SNFS, RigL, DynSparse, others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from glue_sparse.core import budgets
from glue_sparse.core.masks import Masks
from glue_sparse.core.options import Inactive, Initial
from glue_sparse.costs.formulas import Rule as FlopsRule
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.methods.base import Batches, Combine, Moment, SparseMethod, alone
from glue_sparse.methods.moving import checkpoint as moved
from glue_sparse.methods.moving import regularization
from glue_sparse.methods.moving.explored import explored_share, explored_shares, mean_of
from glue_sparse.methods.moving.history import History, block_statistics
from glue_sparse.methods.moving.initial import redraw
from glue_sparse.methods.moving.mover import Mover, check_state
from glue_sparse.methods.moving.rules import RIGL, Rule
from glue_sparse.methods.moving.start import VarianceOf, entry_counts, initial_masks, keep_variance
from glue_sparse.writing import bounds


class DropGrow(SparseMethod):
    """Dynamic sparse training (arXiv 1707.04780, 1907.04840, 1911.11134, 2108.06277): inactive entries are zero.

    Sparse are the matrices inside the layers of a transformer, and the weights of all linear, convolutional and
    recurrent layers of other networks; the head and all other tensors train whole.

    Args:
        rule: `STATIC`, `SET`, `SNFS`, `RIGL`, `DYNSPARSE`, or another `Rule`; its tiles are active as a whole.
        density: active share of the entries of the sparse tensors, in (0, 1].
        distribution: how density differs between tensors: `uniform`; `first_dense`, the first tensor dense and the
            others at `density`; `er` (Mocanu et al., 2018) or `erk` (Evci et al., 2020), denser where a tensor is
            small; or a function of (shapes, density) -> density of each.
        power: of the formula of `er` and `erk`.
        densities: shell pattern -> density of the tensors it matches, which stand apart from the distribution.
        tensors: shell patterns of the tensors to make sparse, instead of the default.
        start: the first mask has each tensor's largest weights (`magnitude`, for pretrained models) or random ones.
        variance: rescale the weights that are left so that the variance of a layer's outputs (`fan_in`) or of the
            gradients of its inputs (`fan_out`) is that of the dense layer; for random weights.
        initial: draw the weights of a random network anew, before `variance`: `truncated_normal` (standard deviation
            0.02, cut at 0.04) or `glorot`.
        inactive: inactive entries may be `frozen` where they start instead (figure 1a of 2108.06277).
        group_lasso: strength of the Group Lasso on tiles, decoupled from the gradient (equation 2 of 2108.06277).
        weight_decay: of the sparse tensors, instead of the optimizer's.
        seed: for what is random.
    """

    refuses_merging = "entries that move cannot train as workers that merge, which would move them apart"

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
        initial: Initial | None = None,
        inactive: Inactive = "zero",
        group_lasso: float = 0.0,
        weight_decay: float | None = None,
        seed: int = 0,
    ):
        if inactive == "frozen" and (initial or variance):
            raise ValueError("`weight_init` and `variance` change active weights alone, and frozen ones would stay as "
                             "they are: leave them out, or use `inactive` zero")  # fmt: skip
        bounds.check("group_lasso", group_lasso, bounds.NOT_NEGATIVE)
        bounds.check("sparse_weight_decay", weight_decay, bounds.NOT_NEGATIVE)
        bounds.check("power", power, bounds.NOT_NEGATIVE)
        self.rule, self.density, self.distribution, self.power = rule, density, distribution, power
        self.densities, self.tensors, self.seed = densities or {}, tuple(tensors), seed
        self.start: Literal["magnitude", "random"] = start
        self.variance: VarianceOf | None = variance
        self.initial: Initial | None = initial
        self.inactive: Inactive = inactive
        self.block_size, self.group_lasso, self.weight_decay = rule.block_size, group_lasso, weight_decay
        self.needs_data, self.moves = False, rule.grow is not None
        self.without_fp16 = rule.gradients != "never" or rule.when == "replace"
        self._mover: Mover | None = None
        self._stored: dict[str, Any] = {}

    def flops_rule(self, num_steps: int, num_epochs: float | None) -> tuple[FlopsRule, int | None]:
        """See `SparseMethod.flops_rule`; RigL in a run too short for an update costs what a static mask does."""
        if self.inactive == "frozen":
            return "frozen", None
        schedule = self.rule.schedule.in_steps(num_steps, num_epochs)
        if self.rule.kind == "rigl" and not schedule.num_updates:
            return "static", None
        return self.rule.kind, int(schedule.every)

    def check(self, model: nn.Module, head: tuple[str, ...], num_steps: int | None) -> None:
        """See `SparseMethod.check`: tiles or densities that do not fit a tensor, more intervals than steps."""
        self._counts(model, head)
        if num_steps is not None and self.rule.schedule.intervals is not None:
            self.rule.schedule.in_steps(num_steps)

    def prepare(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone
    ) -> Masks:
        """See `SparseMethod.prepare`; ValueError where a tensor would keep nothing, or a pattern matches nothing."""
        return initial_masks(model, self._counts(model, head), self.seed, self.start, self.block_size)

    def _counts(self, model: nn.Module, head: tuple[str, ...]) -> dict[str, int]:
        return entry_counts(
            model, head, self.density, self.distribution, self.power, self.densities, self.tensors, self.block_size
        )

    def attach(self, model: nn.Module, masks: Masks) -> None:
        """See `SparseMethod.attach`."""
        super().attach(model, masks)
        if self.initial:
            redraw(model, self.initial, self.seed)
        if self.variance:
            keep_variance(model, self.variance)

    def before_step(self, model: nn.Module, moment: Moment) -> None:
        """See `SparseMethod.before_step`."""
        if self._mover is None or moment.step == 0:
            self._mover = Mover(self.rule, moment.num_steps, self.seed, moment.num_epochs)
            self._mover.load_state(model, self._stored if moment.step else {})  # a new run begins a new history
        self._mover.before_step(model, moment.step)

    def gradients_ready(self, model: nn.Module, moment: Moment) -> bool:
        """See `SparseMethod.gradients_ready`."""
        assert self._mover is not None
        replaced = self._mover.gradients_ready(model, moment.step, moment.optimizer)
        if self.group_lasso and not replaced:
            regularization.apply(model, moment.optimizer, self.group_lasso, self.block_size)
        return replaced

    def after_step(self, model: nn.Module, moment: Moment) -> None:
        """See `SparseMethod.after_step`."""
        assert self._mover is not None
        self._mover.after_step(model, moment.step, moment.optimizer)

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """See `SparseMethod.param_groups`: the sparse tensors, where they have a weight decay of their own."""
        return [] if self.weight_decay is None else regularization.sparse_group(model, self.weight_decay)

    def logs(self, model: nn.Module) -> dict[str, Any]:
        """The share of the sparse tensors' entries that have been active so far."""
        return {"explored": explored_share(model)}

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """See `SparseMethod.facts`."""
        shares = explored_shares(model)
        return {
            "block_size": self.block_size,
            "explored": shares,
            "mean_explored": mean_of(shares),
            "updates": self._history.facts(),
            "tiles": block_statistics(model, self.block_size),
        }

    def finish(self, model: nn.Module, folder: Path | None) -> None:
        """See `SparseMethod.finish`: writes how long each tile was active."""
        if folder is not None:
            self._history.save(model, folder)

    @property
    def _history(self) -> History:
        """That of the run so far; after `restore`, that of the checkpoint."""
        if self._mover is not None:
            return self._mover.history
        history = History(self.block_size)
        history.load_state(self._stored)
        return history

    def save(self, model: nn.Module, info: DiffInfo, folder: Path) -> None:
        """See `SparseMethod.save`."""
        moved.save(model, info, folder, self._mover.state() if self._mover else self._stored)

    def restore(self, model: nn.Module, head: tuple[str, ...], folder: Path) -> None:
        """See `SparseMethod.restore`."""
        check = partial(check_state, block_size=self.block_size)
        self._stored, self._mover = moved.restore(model, folder, self.block_size, check), None


def with_changes(rule: Rule, **changes: Any) -> Rule:
    """A rule with some fields, its own or its schedule's, replaced; None changes nothing, a period ends intervals."""
    given = {key: value for key, value in changes.items() if value is not None}
    if "every" in given:
        rule = replace(rule, schedule=replace(rule.schedule, intervals=None))
    schedule = {key: given.pop(key) for key in list(given) if hasattr(rule.schedule, key)}
    return replace(rule, **given, schedule=replace(rule.schedule, **schedule))
