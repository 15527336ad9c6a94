"""What an algorithm decides: which entries are active, and what the others hold."""

from collections.abc import Callable, Iterable

from torch import nn

from glue_sparse.active import Inactive
from glue_sparse.masks import Masks, Scores
from glue_sparse.per_example import Batch

Batches = Callable[[int], Iterable[Batch]]
"""num_samples -> collated batches of that many training examples in all, this rank's share of them."""
Combine = Callable[[Scores], Scores]
"""Scores of this rank's share of the examples -> scores of all of them."""


def alone(scores: Scores) -> Scores:
    """How a single process combines scores: it has seen all examples."""
    return scores


class SparseMethod:
    """Base of all methods."""

    inactive: Inactive = "frozen"
    """What inactive entries hold: their old value, or zero."""
    needs_data: bool = True
    """Whether the choice depends on data or chance; if not, all workers make it alike without being told."""

    def prepare(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone
    ) -> Masks:
        """Choose the active entries, once, before the optimizer exists.

        Args:
            model: plain, on its device; to be left as it is.
            head: names of the parameters that train whole whatever happens.
            batches: data to choose by.
            combine: adds scores over ranks, where each sees a share of the batches.
        Returns:
            Masks of the tensors that do not train whole; the same on every rank.
        """
        raise NotImplementedError

    def prepare_shares(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, num_shares: int
    ) -> list[Masks]:
        """Disjoint masks for `num_shares` workers, or a single one for all where the method has no shares to give."""
        return [self.prepare(model, head, batches)]
