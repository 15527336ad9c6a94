"""Train a set of entries that is chosen once: the best by a score, or given."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from glue_sparse import budgets
from glue_sparse.active import Inactive
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
        inactive: what the other entries hold.
    Raises:
        ValueError: both or neither of `score` and `masks`.
    """

    def __init__(
        self,
        score: ScoreFunction | None = None,
        *,
        density: float = 0.005,
        tensors: Sequence[str] = (),
        num_samples: int = 1024,
        masks: Masks | Callable[[nn.Module, tuple[str, ...]], Masks] | None = None,
        inactive: Inactive = "frozen",
    ):
        if (score is None) == (masks is None):
            raise ValueError("FixedMask takes either a score or masks")
        self.score, self.density, self.tensors, self.num_samples = score, density, tensors, num_samples
        self.masks, self.inactive = masks, inactive
        self.needs_data = score is not None

    def prepare(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone
    ) -> Masks:
        """See `SparseMethod.prepare`; raises ValueError when the head alone exceeds the budget."""
        if self.score is None:
            assert self.masks is not None
            return self.masks(model, head) if callable(self.masks) else self.masks
        return self._select(model, head, batches, combine, 1)[0]

    def prepare_shares(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, num_shares: int
    ) -> list[Masks]:
        """With a score: of the `num_shares` budgets of best entries each worker gets every n-th rank."""
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
