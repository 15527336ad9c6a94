"""Tensors that are shared out among ranks by `fully_shard` (FSDP2): what a rank holds, and entries of the whole."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard

from glue_sparse.core import operators, ranks


def is_sharded(model: nn.Module) -> bool:
    """Whether `fully_shard` was called for the model as a whole."""
    return isinstance(model, FSDPModule)


def is_part(tensor: Tensor) -> bool:
    """Whether a tensor is shared out among ranks."""
    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, without its history; a tensor that is not sharded as it is."""
    detached: Any = tensor.detach()
    return detached.to_local() if isinstance(detached, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all of its entries, without its history; of a sharded one, what all ranks make together."""
    detached: Any = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


def inside(tensor: Tensor, indices: Tensor) -> tuple[Any, Tensor]:
    """Which of [k] ascending flat positions of a sharded tensor are in this rank's part, and where they are there.

    Raises:
        ValueError: see `Part.of`.
    """
    return Part.of("a tensor", tensor).inside(indices.to(local(tensor).device))


def write(tensor: Tensor, indices: Tensor, values: Tensor) -> None:
    """Write [k] values at flat positions, in the tensor's type; of a sharded one, those in this rank's part.

    Args:
        indices: [k] ascending, int32 or int64.
    """
    if isinstance(tensor, DTensor):
        write_inside(tensor, inside(tensor, indices), values)
    else:
        operators.write(tensor.data, indices, values)  # .data: autograd may have saved the tensor


def write_inside(tensor: Tensor, found: tuple[Any, Tensor], values: Tensor) -> None:
    """The same for a sharded tensor, at the positions that `inside` has found."""
    chosen, places = found
    if len(places):
        operators.write(local(tensor).data, places, values if values.numel() == 1 else values[chosen])


def read(tensor: Tensor, indices: Tensor) -> Tensor:
    """[k] entries at ascending flat positions, without a gradient; of a sharded one, what all ranks find."""
    if not isinstance(tensor, DTensor):
        dense = tensor.detach()
        return (dense.to_dense() if dense.is_sparse else dense).reshape(-1)[indices.long()]
    held = local(tensor)
    chosen, places = inside(tensor, indices)
    # bits as whole numbers, since 0.0 + -0.0 is 0.0; and int64, which all backends add
    kind = {8: torch.int64, 4: torch.int32, 2: torch.int16}[held.itemsize]
    bits = torch.zeros(len(indices), dtype=torch.int64, device=held.device)
    bits[chosen] = held.reshape(-1)[places].view(kind).long()
    for axis, placement in enumerate(tensor.placements):
        if placement.is_shard():
            dist.all_reduce(bits, group=tensor.device_mesh.get_group(axis))
    return bits.to(kind).view(held.dtype)


def holds(tensor: Tensor, indices: Tensor, values: Tensor) -> bool:
    """Whether a tensor, or this rank's part of it, has these values at these ascending positions."""
    held, chosen, places = local(tensor).detach(), slice(None), indices.long()
    if isinstance(tensor, DTensor):
        chosen, places = inside(tensor, indices)
    return torch.equal(held.reshape(-1)[places.to(held.device)], values[chosen].to(held.device, held.dtype))


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

    def inside(self, positions: Tensor) -> tuple[Tensor | slice, Tensor]:
        """Which of ascending flat positions in the whole tensor are in the rank's part, and where they are there."""
        if self.dim == 0:  # entries that follow each other
            ends = torch.tensor([self._offset, self._offset + self._run], device=positions.device)
            low, high = torch.searchsorted(positions.long(), ends).tolist()
            return slice(low, high), positions[low:high].long() - self._offset
        places = positions.long() % self._row - self._offset
        chosen = (places >= 0) & (places < self._run)
        return chosen, (places + positions.long() // self._row * self._run)[chosen]

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
