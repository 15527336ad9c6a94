"""Entries of a tensor by their flat positions in the whole, also where a rank holds a part of it alone (FSDP2)."""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from glue_sparse.core import operators


class Part(NamedTuple):
    """What a rank holds of a tensor.

    Attributes:
        local: contiguous, changed in place.
        start: where its first entry is in the whole, dimension by dimension.
    """

    local: Tensor
    start: tuple[int, ...]


def is_part(tensor: Tensor) -> bool:
    """Whether a tensor is shared out over ranks."""
    return hasattr(tensor, "device_mesh")


def part_of(tensor: Any) -> Part:
    """This rank's part of a tensor that is shared out over ranks; of parts that are no box a ValueError."""
    from torch.distributed.tensor import Shard  # a second of imports, where nothing else needs it
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    dims = [place.dim for place in tensor.placements if isinstance(place, Shard)]
    if any(type(place) is not Shard for place in tensor.placements if not place.is_replicate()) or len(dims) > 1:
        raise ValueError(f"a tensor is shared out as {tensor.placements}, and active entries know parts along one "
                         "dimension alone: shard by FSDP2, without tensor parallelism")  # fmt: skip
    shape, start = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    local = tensor.to_local().detach()
    assert local.shape == torch.Size(shape)
    return Part(local, tuple(start) if local.numel() else (0,) * tensor.dim())


def whole(tensor: Any) -> Tensor:
    """A tensor with all of its entries, without a gradient; of a part, what all ranks make together."""
    return tensor.detach().full_tensor() if is_part(tensor) else tensor.detach()


def write(tensor: Tensor, indices: Tensor, values: Tensor) -> None:
    """Write [k] values at flat positions, in the tensor's type; of a part, those of them that are here.

    Args:
        indices: [k] sorted, int32 or int64.
    """
    if not is_part(tensor):
        operators.write(tensor.data, indices, values)  # .data: autograd may have saved the tensor
        return
    local, chosen, places = _here(tensor, indices)
    if len(places):
        operators.write(local.data, places, values[chosen])


def read(tensor: Tensor, indices: Tensor) -> Tensor:
    """[k] entries at sorted flat positions, without a gradient; of a part, what all ranks find together."""
    if not is_part(tensor):
        dense = tensor.detach()
        return (dense.to_dense() if dense.is_sparse else dense).reshape(-1)[indices.long()]
    local, chosen, places = _here(tensor, indices)
    # as numbers of their bits, since 0.0 + -0.0 is 0.0; messages of 16 bits are not known to all backends
    bits = torch.zeros(len(indices), dtype=torch.int64, device=local.device)
    kind = {8: torch.int64, 4: torch.int32, 2: torch.int16}[local.itemsize]
    bits[chosen] = local.reshape(-1)[places].view(kind).long()
    for group in _shard_groups(tensor):
        dist.all_reduce(bits, group=group)
    return bits.to(kind).view(local.dtype)


def holds(tensor: Tensor, indices: Tensor, values: Tensor) -> bool:
    """Whether a tensor, or the part that is here, has these values at these positions."""
    if not is_part(tensor):
        return torch.equal(read(tensor, indices), values.to(tensor.device, tensor.dtype))
    local, chosen, places = _here(tensor, indices)
    return torch.equal(local.reshape(-1)[places], values[chosen].to(local.device, local.dtype))


def _here(tensor: Tensor, indices: Tensor) -> tuple[Tensor, Tensor | slice, Tensor]:
    """This rank's part, which of the positions are in it, and where they are there."""
    local, start = part_of(tensor)
    indices = indices.to(local.device)
    if local.dim() and local.shape[1:] == tensor.shape[1:]:  # rows that follow each other
        first = start[0] * tensor.shape[1:].numel()
        ends = torch.tensor([first, first + local.numel()], dtype=torch.int64, device=local.device)
        low, high = torch.searchsorted(indices.long(), ends).tolist()
        return local, slice(low, high), indices[low:high].long() - first
    at = torch.stack(torch.unravel_index(indices.long(), tensor.shape))
    at -= torch.tensor(start, device=local.device).unsqueeze(1)
    sizes = torch.tensor(local.shape, device=local.device).unsqueeze(1)
    chosen = ((at >= 0) & (at < sizes)).all(0)
    strides = torch.tensor(local.contiguous().stride(), device=local.device).unsqueeze(1)
    return local, chosen, (at[:, chosen] * strides).sum(0)


def _shard_groups(tensor: Any) -> list[Any]:
    """The groups of ranks over which a tensor is shared out."""
    return [tensor.device_mesh.get_group(number) for number, place in enumerate(tensor.placements)
            if place.is_shard()]  # fmt: skip
