"""Train a set of entries that is chosen once: the best by a score, or given."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from glue_sparse import budgets
from glue_sparse.active import Inactive
from glue_sparse.diff import SparseDiff
from glue_sparse.masks import Masks, select
from glue_sparse.methods.base import Batches, Combine, SparseMethod, alone
from glue_sparse.params import body_names, match
from glue_sparse.scores import ScoreFunction


class FixedMask(SparseMethod):
    """One mask for the whole run (Sung et al., 2021, section 3; with other scores, its baselines).

    Args:
        score: (model, names, batches) -> one number per entry; the best `density` of the model becomes active.
        density: active fraction of all entries of the model, head included, in (0, 1].
        tensors: shell patterns of the tensors that may hold active entries; by default all but the head.
        num_samples: training examples the score may use, over all ranks.
        masks: instead of a score, the masks themselves or a function of (model, names of the head).
        start: instead of both, a diff whose entries train on.
        start_from: with `start`, begin at its `values`, or at those of the base (a difference of `zero`).
        inactive: what the other entries hold; with `start`, what the diff says.
    Raises:
        ValueError: not exactly one of `score`, `masks` and `start`.
    """

    def __init__(
        self,
        score: ScoreFunction | None = None,
        *,
        density: float = 0.005,
        tensors: Sequence[str] = (),
        num_samples: int = 1024,
        masks: Masks | Callable[[nn.Module, tuple[str, ...]], Masks] | None = None,
        start: SparseDiff | None = None,
        start_from: Literal["values", "zero"] = "values",
        inactive: Inactive = "frozen",
    ):
        if sum(given is not None for given in (score, masks, start)) != 1:
            raise ValueError("FixedMask takes one of a score, masks, and a diff to start from")
        self.score, self.density, self.tensors, self.num_samples = score, density, tensors, num_samples
        self.masks, self.start, self.start_from = masks, start, start_from
        self.inactive = start.info.inactive if start else inactive
        self.needs_data = score is not None

    def prepare(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone
    ) -> Masks:
        """See `SparseMethod.prepare`.

        Raises:
            ValueError: the head alone exceeds the budget, or the model is not the base of the diff to start from.
        """
        if self.start is not None:
            self.start.check(model)
            return self.start.masks(model)
        if self.score is None:
            assert self.masks is not None
            return self.masks(model, head) if callable(self.masks) else self.masks
        return self._select(model, head, batches, combine, 1)[0]

    def attach(self, model: nn.Module, masks: Masks) -> None:
        """See `SparseMethod.attach`; entries of a diff to start from get its values."""
        start = self.start.at_base(model) if self.start and self.start_from == "zero" else self.start
        super().attach(model, masks)
        if start is not None:
            start.restore(model)

    def prepare_shares(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, num_shares: int
    ) -> list[Masks]:
        """With a score: of the `num_shares` budgets of best entries each worker gets every n-th rank.

        Raises:
            ValueError: with a diff to start from, or with zeros, since workers begin at the pretrained values.
        """
        if self.start is not None:
            raise ValueError("workers that merge cannot start from a diff: leave --merge_every or --start_diff out")
        if self.inactive == "zero":
            raise ValueError("pruned models cannot train as workers that merge: leave --merge_every out")
        if self.score is None:
            return [self.prepare(model, head, batches)]
        return self._select(model, head, batches, alone, num_shares)

    def _select(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine, num_shares: int
    ) -> list[Masks]:
        assert self.score is not None
        body = body_names(model, head)
        names = match(body, tuple(self.tensors)) if self.tensors else body
        num_head = sum(model.get_parameter(name).numel() for name in head)
        budget = budgets.total(self.density, sum(p.numel() for p in model.parameters()), num_head)
        scores = self.score(model, names, batches(self.num_samples))
        if scores.keys() != set(names):
            raise ValueError(f"the score must name each of the {len(names)} tensors it is asked for, and no other")
        scores = combine(scores)
        nothing = {name: torch.zeros(model.get_parameter(name).shape, dtype=torch.bool) for name in body}
        return [{**nothing, **select(scores, budget, share=(i, num_shares))} for i in range(num_shares)]
