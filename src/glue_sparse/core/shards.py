"""Models whose tensors are shared out among ranks by `fully_shard` (FSDP2): what a rank holds, and masks from scores
of which each rank holds a part."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard

from glue_sparse.core import ranks
from glue_sparse.core.chosen import Chosen, narrow
from glue_sparse.core.pieces import InPieces, pieces_of
from glue_sparse.core.selection import Alone, choose


def is_sharded(model: nn.Module) -> bool:
    """Whether `fully_shard` was called for the model as a whole."""
    return isinstance(model, FSDPModule)


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, without its history; a tensor that is not sharded as it is."""
    detached: Any = tensor.detach()
    return detached.to_local() if isinstance(detached, DTensor) else tensor


@dataclass(frozen=True)
class Part:
    """Which entries of a tensor a rank holds: a slice along one dimension.

    Attributes:
        shape: of the whole tensor.
        dim: along which it is cut.
        start: of the slice.
        length: of the slice, which may be 0.
        num_parts: into how many it is cut.
        is_counted: not on ranks that hold a replica of what another rank holds (HSDP).
        device: over which ranks talk.
    """

    shape: torch.Size
    dim: int
    start: int
    length: int
    num_parts: int
    is_counted: bool
    device: torch.device

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> "Part":
        """That of a parameter of this name.

        Raises:
            ValueError: it is not cut along exactly one dimension, over all ranks.
        """
        placements = tensor.placements if isinstance(tensor, DTensor) else ()
        cuts = [placement for placement in placements if type(placement) is Shard]
        others = [placement for placement in placements if not isinstance(placement, Shard | Replicate)]
        if not isinstance(tensor, DTensor) or len(cuts) != 1 or others or tensor.device_mesh.size() != ranks.count():
            how = f"placed as {placements}" if placements else "not sharded"
            raise ValueError(f"{name} is {how}: give a model that `fully_shard` has cut along one dimension over all "
                             "ranks, without tensor parallelism or ignored parameters")  # fmt: skip
        mesh, axis, dim = tensor.device_mesh, placements.index(cuts[0]), cuts[0].dim
        where = mesh.get_coordinate() or []
        size, num_parts = tensor.shape[dim], mesh.size(axis)
        most = -(-size // num_parts)  # as `torch.chunk` cuts
        start = min(where[axis] * most, size)
        is_counted = not any(place for i, place in enumerate(where) if i != axis)
        device = torch.device(mesh.device_type)
        found = cls(tensor.shape, dim, start, min(most, size - start), num_parts, is_counted, device)
        if local(tensor).shape != found.local_shape:
            raise ValueError(f"{name} is not cut as `torch.chunk` would: rank {ranks.index()} holds "
                             f"{tuple(local(tensor).shape)} of {tuple(tensor.shape)}")  # fmt: skip
        return found

    @property
    def local_shape(self) -> torch.Size:
        """Of what the rank holds."""
        return torch.Size((*self.shape[: self.dim], self.length, *self.shape[self.dim + 1 :]))

    def positions(self, positions: Tensor) -> Tensor:
        """int64 flat positions in the whole tensor of those in the rank's part; in the same order."""
        row, run = self._row, self._run
        outer = positions.long() // run if run else 0
        return positions.long() + outer * (row - run) + self._offset

    def cut(self, piece: Tensor, start: int) -> Tensor:
        """Those entries of a piece of the flat whole tensor, which begins at `start`, that the rank holds."""
        if self._run == 0:
            return piece[:0]
        places = torch.arange(start, start + len(piece)) % self._row - self._offset
        return piece[(places >= 0) & (places < self._run)]

    @property
    def _row(self) -> int:
        """Entries that are next to each other in the whole tensor and are cut once."""
        return prod(self.shape[self.dim :])

    @property
    def _run(self) -> int:
        """Those of them that the rank holds."""
        return self.length * prod(self.shape[self.dim + 1 :])

    @property
    def _offset(self) -> int:
        """Where they begin."""
        return self.start * prod(self.shape[self.dim + 1 :])


def parts_of(model: nn.Module, names: tuple[str, ...]) -> dict[str, Part]:
    """What this rank holds of these parameters; see `Part.of`."""
    return {name: Part.of(name, model.get_parameter(name)) for name in names}


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
