"""Scores read a piece at a time, so that choosing among them needs no memory of a whole tensor."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

SIZE = 1 << 18
"""Entries of a piece, a megabyte in float32: of larger ones the allocator keeps more after they are freed."""


class InPieces(Mapping[str, Tensor]):
    """Scores that can be computed in parts of a tensor."""

    @abstractmethod
    def pieces(self, name: str) -> tuple[torch.Size, Iterator[Tensor]]:
        """The shape of a tensor, and its entries in flat order as vectors of any length."""
        ...


def pieces_of(scores: Mapping[str, Tensor], name: str) -> tuple[torch.Size, Iterator[Tensor]]:
    """The shape of a tensor of scores, and its entries in flat order as vectors of at most `SIZE`."""
    if isinstance(scores, InPieces):
        return scores.pieces(name)
    score = scores[name].detach()
    return score.shape, iter(score.reshape(-1).split(SIZE))
