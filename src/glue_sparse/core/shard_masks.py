"""Masks from scores of which each rank holds a part, the same as those from whole scores."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from glue_sparse.core import ranks
from glue_sparse.core.chosen import Chosen, narrow
from glue_sparse.core.pieces import InPieces, pieces_of
from glue_sparse.core.selection import Alone, choose
from glue_sparse.core.shards import Part


def select_on_shards(
    scores: Mapping[str, Tensor], budget: int | dict[str, int], parts: Mapping[str, Part]
) -> Chosen:  # fmt: skip
    """The masks that `masks.select` gives for the whole scores, where each rank holds those of its own part.

    Ranks exchange two histograms, numbers of ties, and the positions that are chosen; all call this together.

    Args:
        scores: finite, of the shapes of this rank's parts. They are read three times, or four where many are equal.
        budget: as for `select`.
        parts: of the same names.
    Returns:
        The same masks on every rank, of the whole tensors, on the CPU.
    Raises:
        ValueError: as `select`, on all ranks; or scores of another shape than the parts.
    """
    with ranks.together():
        for name, part in parts.items():
            if (shape := pieces_of(scores, name)[0]) != part.local_shape:
                raise ValueError(f"scores of {name} have the shape {tuple(shape)}, but this rank's part of it has "
                                 f"{tuple(part.local_shape)}")  # fmt: skip
    return choose(_Counted(scores, parts), budget, parts=_OverRanks(parts))


class _Counted(InPieces):
    """Scores of a rank's parts, or of nothing where another rank counts them."""

    def __init__(self, scores: Mapping[str, Tensor], parts: Mapping[str, Part]):
        self.scores, self.parts = scores, parts

    def pieces(self, name: str) -> tuple[torch.Size, Iterator[Tensor]]:
        """See `InPieces.pieces`."""
        if self.parts[name].is_counted:
            return pieces_of(self.scores, name)
        return torch.Size((0,)), iter([torch.zeros(0)])

    def __getitem__(self, name: str) -> Tensor:
        return torch.cat([*self.pieces(name)[1]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


class _OverRanks(Alone):
    """Each rank reads its own parts."""

    def __init__(self, parts: Mapping[str, Part]):
        self.parts = parts
        self.device = next(iter(parts.values())).device if parts else torch.device("cpu")

    def together(self) -> AbstractContextManager[None]:
        """See `Alone.together`."""
        return ranks.together()

    def add(self, counts: Tensor) -> Tensor:
        """See `Alone.add`."""
        return ranks.add({"counts": counts}, self.device)["counts"].cpu()

    def num_ties(self, name: str, most: int, ties: Callable[[], Iterator[Tensor]]) -> int:
        """See `Alone.num_ties`.

        Where not all can be taken, the position before which `most` of them lie is found by halving.
        """
        if not most:
            return 0
        own = self._first(most, ties())
        places = self.parts[name].positions(own)
        if int(self.add(torch.tensor(len(places)))) <= most:
            return len(places)
        low, high = 0, self.parts[name].shape.numel()
        while low < high:
            middle = (low + high) // 2
            before = torch.searchsorted(places, middle)
            low, high = (low, middle) if int(self.add(before)) >= most else (middle + 1, high)
        return int(torch.searchsorted(places, low))

    def _first(self, most: int, ties: Iterator[Tensor]) -> Tensor:
        found, count = [], 0
        for part in ties:
            found.append(part[: most - count].cpu())
            count += len(found[-1])
            if count == most:
                break
        return torch.cat(found)

    def union(self, name: str, positions: Tensor, shape: torch.Size) -> tuple[Tensor, torch.Size]:
        """See `Alone.union`."""
        part = self.parts[name]
        found = ranks.joined(narrow(part.positions(positions), part.shape.numel()), part.device)
        return found.cpu().sort().values, part.shape
