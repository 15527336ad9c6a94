"""Numbers that are finite: what is not is no model, no result and no base to start from."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from glue_sparse.core.parametrization import current_tensors, persistent_buffers


def first_not_finite(tensors: Mapping[str, Tensor], fixed: Mapping[str, Tensor] | None = None) -> str | None:
    """Name of the first tensor with NaN or an infinite number; nothing is copied.

    Args:
        fixed: tensors that nobody trains, of which masks of attention hold infinite numbers: only NaN is wrong there.
    """
    ours, others = _counting(tensors), _counting(fixed or {})
    if not _has(ours, lambda sums: ~sums.isfinite()) and not _has(others, torch.isnan):
        return None
    flags = {name: tensor.isfinite().all() for name, tensor in ours.items()}
    flags |= {name: ~tensor.isnan().any() for name, tensor in others.items()}
    return next((name for name, flag in flags.items() if not flag), None)


def _has(tensors: Mapping[str, Tensor], wrong: Callable[[Tensor], Tensor]) -> bool:
    """Whether any may hold a wrong number: then its sum is one, as it also is where large numbers add up to no number.

    One pass over each tensor without a copy of it, and one look at the device for each type.
    """
    sums: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors.values():
        sums.setdefault((tensor.device, tensor.dtype), []).append(tensor.sum())
    return any(bool(wrong(torch.stack(found)).any()) for found in sums.values())


def _counting(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors.items() if _counts(tensor)}


def _counts(tensor: Tensor) -> bool:
    """Whether a tensor has numbers of which any could be infinite; types of one byte are quantised weights."""
    return not tensor.is_meta and tensor.dtype.itemsize > 1 and (tensor.is_floating_point() or tensor.is_complex())


def check_model(model: nn.Module) -> None:
    """Raise a ValueError that names a tensor of a model, plain or attached, with NaN or an infinite number."""
    buffers = persistent_buffers(model)
    tensors = {name: tensor for name, tensor in current_tensors(model).items() if name not in buffers}
    if name := first_not_finite(tensors, buffers):
        raise ValueError(f"{name} of this model holds numbers that are not finite: start from sound weights")
