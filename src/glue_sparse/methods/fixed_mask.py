"""Train a set of entries that is chosen once, or now and then: the best by a score, or given."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from torch import nn

from glue_sparse.core import budgets
from glue_sparse.core.active import Inactive
from glue_sparse.core.masks import Masks, select
from glue_sparse.core.options import Shared
from glue_sparse.core.params import head_size, trainable_names
from glue_sparse.core.shards import is_sharded
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.methods.base import Batches, Combine, Moment, SparseMethod, alone
from glue_sparse.methods.moving import checkpoint as moved
from glue_sparse.methods.refresh import Refresh, check_late_choice
from glue_sparse.methods.schedules import Period
from glue_sparse.scores.choosing import choose_on_shards
from glue_sparse.scores.scores import ScoreFunction, check_names, of_all_ranks, refuses_shards
from glue_sparse.writing import bounds
from glue_sparse.writing.words import check_one_of


class FixedMask(SparseMethod):
    """One mask for the whole run (Sung et al., 2021, section 3; with other scores, its baselines).

    Args:
        score: (model, names, batches) -> one number per entry; the best `density` of the model becomes active.
        density: active fraction of all entries of the model, head and frozen tensors included, in (0, 1].
        tensors: shell patterns of the tensors that may hold active entries; by default all but the head. Those that
            are frozen (`requires_grad=False`) hold none.
        distribution: the best of all tensors together (`global`), of each at the same density (`uniform`), or at
            Erdos-Renyi densities (`erk`); the number of entries in all is the same.
        num_samples: training examples the score may use, over all ranks.
        masks: instead of a score, the masks themselves or a function of (model, names of the head).
        start: instead of both, a diff whose entries train on.
        start_from: with `start`, begin at its `values`, or at those of the base (a difference of `zero`).
        inactive: what the other entries hold; with `start`, what the diff says.
        update_every: choose by the score again after so many steps (below 1: a fraction of the run) or each `epoch`;
            never by default.
        choose_after: choose by the score once more after so many steps (below 1: a fraction of the run), and for good.
            What stops being active gets its first value back, so that no more than `density` differs from the base.
        score_of: number of the choice -> score, where it differs between choices, as noise does.
        block_size: side of the tiles that given masks are made of, which layers may then compute with alone.
    Raises:
        ValueError: not exactly one of `score`, `masks` and `start`; both `update_every` and `choose_after`.
    """

    def __init__(
        self,
        score: ScoreFunction | None = None,
        *,
        density: float = 0.005,
        tensors: Sequence[str] = (),
        distribution: Shared = "global",
        num_samples: int = 1024,
        masks: Masks | Callable[[nn.Module, tuple[str, ...]], Masks] | None = None,
        start: SparseDiff | None = None,
        start_from: Literal["values", "zero"] = "values",
        inactive: Inactive = "frozen",
        update_every: Period | None = None,
        choose_after: float | None = None,
        score_of: Callable[[int], ScoreFunction] | None = None,
        block_size: int = 1,
    ):
        if sum(given is not None for given in (score, masks, start)) != 1:
            raise ValueError("FixedMask takes one of a score, masks, and a diff to start from")
        again = "update_every" if update_every is not None else "choose_after" if choose_after is not None else ""
        if score is None and again:
            raise ValueError(f"only a mask that is chosen by a score can be chosen anew: leave `{again}` out")
        if update_every is not None and choose_after is not None:
            raise ValueError("`update_every` chooses again and again and `choose_after` once: give one of them")
        check_one_of("distribution", distribution, get_args(Shared))
        bounds.check("choose_after", choose_after, bounds.STEPS)
        bounds.check("num_samples", num_samples, bounds.COUNT, int)
        self.score, self.density, self.tensors, self.num_samples = score, density, tensors, num_samples
        self.distribution: Shared = distribution
        self.given_masks, self.start, self.start_from = masks, start, start_from
        self.inactive = start.info.inactive if start else inactive
        self.needs_data = score is not None
        self.update_every: Period | None = update_every
        self.choose_after = choose_after
        self.score_of = score_of
        self.moves = bool(again)
        self.block_size = block_size
        self._refresh: Refresh | None = None

    def check(self, model: nn.Module, head: tuple[str, ...], num_steps: int | None) -> None:
        """See `SparseMethod.check`."""
        if self.choose_after is not None and num_steps is not None:
            check_late_choice(self.choose_after, num_steps)

    def prepare(self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone) -> Masks:
        """See `SparseMethod.prepare`.

        Raises:
            ValueError: the head alone exceeds the budget, the model is not the base of the diff to start from, or it is
                sharded and `refuses_shards` says why it should not be.
        """
        if is_sharded(model) and self.refuses_shards:
            raise ValueError(self.refuses_shards)
        if self.start is not None:
            self.start.check(model)
            return self.start.masks(model)
        if self.score is None:
            assert self.given_masks is not None
            return self.given_masks(model, head) if callable(self.given_masks) else self.given_masks
        return self._choose(model, head, batches, combine, 0)

    def attach(self, model: nn.Module, masks: Masks) -> None:
        """See `SparseMethod.attach`; entries of a diff to start from get its values."""
        self._refresh = self.refreshed(model)
        start = self.start.at_base(model) if self.start and self.start_from == "zero" else self.start
        super().attach(model, masks)
        if start is not None:
            start.restore(model)

    def before_step(self, model: nn.Module, moment: Moment) -> None:
        """Choose anew where it is time; see `SparseMethod.before_step`."""
        if self._refresh:
            self._refresh.update(model, moment)

    def refreshed(self, model: nn.Module) -> Refresh | None:
        """What chooses anew, from a plain model that is as at the start; none where nothing does."""
        if self.choose_after is not None:
            return Refresh(self.choose_after, self._choose, model, once=True)
        return None if self.update_every is None else Refresh(self.update_every, self._choose, model)

    def save(self, model: nn.Module, info: DiffInfo, folder: Path) -> None:
        """See `SparseMethod.save`."""
        if self.moves:
            moved.save(model, info, folder, {})
        else:
            super().save(model, info, folder)

    def restore(self, model: nn.Module, head: tuple[str, ...], folder: Path) -> None:
        """See `SparseMethod.restore`."""
        self._refresh = self._refresh or self.refreshed(model)
        if self.moves:
            moved.restore(model, folder)
        else:
            super().restore(model, head, folder)

    @property
    def refuses_merging(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Workers begin at the pretrained values, all alike, and are told new masks when they merge."""
        if self.start is not None:
            return "workers that merge cannot start from a diff"
        if self.inactive == "zero":
            return "pruned models cannot train as workers that merge"
        if self.moves:
            return "workers that merge have `refresh_every` for new masks"
        return ""

    @property
    def refuses_shards(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A choice by a score that takes sharded models works on them."""
        return super().refuses_shards if self.score is None else refuses_shards(self.score)

    def prepare_shares(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, num_shares: int, number: int = 0
    ) -> list[Masks]:
        """With a score: of the `num_shares` budgets of best entries each worker gets every n-th rank."""
        if self.score is None:
            return [self.prepare(model, head, batches)]
        return self._select(model, head, batches, alone, num_shares, self._score(number))

    def _choose(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine, number: int
    ) -> Masks:
        return self._select(model, head, batches, combine, 1, self._score(number))[0]

    def _score(self, number: int) -> ScoreFunction:
        """That of a choice."""
        score = self.score_of(number) if self.score_of else self.score
        assert score is not None
        return score

    def _select(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine, num_shares: int,
        score: ScoreFunction,
    ) -> list[Masks]:  # fmt: skip
        body, names = trainable_names(model, head), trainable_names(model, head, self.tensors)
        num_entries, num_head = sum(p.numel() for p in model.parameters()), head_size(model, head)
        budget = budgets.total(self.density, num_entries, num_head)
        budgets.check_room(self.density, budget, sum(model.get_parameter(n).numel() for n in names))
        shapes = {name: model.get_parameter(name).shape for name in names}
        shared = budgets.shared_out(shapes, budget, self.distribution)
        every = {name: model.get_parameter(name).shape for name in body}
        examples = batches(self.num_samples)
        if is_sharded(model):
            return [choose_on_shards(model, names, score, examples, shared).over(every)]
        scores = score(model, names, examples)
        check_names(scores, names)
        scores = of_all_ranks(scores, combine)
        return [select(scores, shared, share=(i, num_shares)).over(every) for i in range(num_shares)]
