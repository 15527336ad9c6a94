"""What the processes of a distributed run ("ranks") do together; a single process does nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def count() -> int:
    """How many processes train together; 1 where nobody has started a group of them."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that speaks for all."""
    return count() == 1 or dist.get_rank() == 0


def add(tensors: Mapping[str, Tensor], device: torch.device) -> Mapping[str, Tensor]:
    """Sums over ranks, tensor by tensor, on the device that their group talks over."""
    if count() == 1:
        return tensors
    summed = {name: tensor.to(device) for name, tensor in tensors.items()}
    for tensor in summed.values():
        dist.all_reduce(tensor)
    return summed


def average(tensor: Tensor) -> None:
    """Replace a tensor by its mean over ranks, in place."""
    if count() > 1:
        dist.all_reduce(tensor)
        tensor /= count()


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Average the gradients of parameters over all ranks, in one message; a missing one counts as zero."""
    if count() == 1 or not parameters:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    average(flat)
    for parameter, mean in zip(parameters, flat.split([g.numel() for g in gradients]), strict=True):
        parameter.grad = mean.view_as(parameter)


def wait() -> None:
    """Return when all ranks are here."""
    if count() > 1:
        dist.barrier()


def everyones(value: Any) -> list[Any]:
    """What each rank holds, in the order of ranks; any picklable value."""
    found: list[Any] = [value] * count()
    if count() > 1:
        dist.all_gather_object(found, value)
    return found


def agree(value: Any) -> bool:
    """Whether all ranks hold the same value; hashable."""
    return len(set(everyones(value))) == 1
