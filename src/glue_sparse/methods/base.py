"""What an algorithm decides: which entries are active, and what the others hold."""

from collections.abc import Callable, Iterable

from torch import nn

from glue_sparse.active import Inactive
from glue_sparse.masks import Masks
from glue_sparse.per_example import Batch

Batches = Callable[[int], Iterable[Batch]]
"""num_samples -> collated batches of that many training examples in all, this rank's share of them."""


class SparseMethod:
    """Base of all methods."""

    inactive: Inactive = "frozen"
    """What inactive entries hold: their old value, or zero."""

    def prepare(self, model: nn.Module, head: tuple[str, ...], batches: Batches) -> Masks:
        """Choose the active entries, once, before the optimizer exists.

        Args:
            model: plain, on its device; to be left as it is.
            head: names of the parameters that train whole whatever happens.
            batches: data to choose by.
        Returns:
            Masks of the tensors that do not train whole; the same on every rank.
        """
        raise NotImplementedError
