"""Numbers that are finite: what is not is no model, no result and no base to start from."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from glue_sparse.core.parametrization import current_tensors, persistent_buffers


def first_not_finite(tensors: Mapping[str, Tensor], fixed: Mapping[str, Tensor] | None = None) -> str | None:
    """Name of the first tensor with NaN or an infinite number; one look at the device for all.

    Args:
        fixed: tensors that nobody trains, of which masks of attention hold infinite numbers: only NaN is wrong there.
    """
    flags: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _counts(tensor):
            flags[name] = tensor.detach().isfinite().all()
    for name, tensor in (fixed or {}).items():
        if _counts(tensor):
            flags[name] = ~tensor.detach().isnan().any()
    devices = {flag.device for flag in flags.values()}
    if all(bool(torch.stack([f for f in flags.values() if f.device == device]).all()) for device in devices):
        return None
    return next(name for name, flag in flags.items() if not flag)


def _counts(tensor: Tensor) -> bool:
    """Whether a tensor has numbers of which any could be infinite; types of one byte are quantised weights."""
    return not tensor.is_meta and tensor.dtype.itemsize > 1 and (tensor.is_floating_point() or tensor.is_complex())


def check_model(model: nn.Module) -> None:
    """Raise a ValueError that names a tensor of a model, plain or attached, with NaN or an infinite number."""
    buffers = persistent_buffers(model)
    tensors = {name: tensor for name, tensor in current_tensors(model).items() if name not in buffers}
    if name := first_not_finite(tensors, buffers):
        raise ValueError(f"{name} of this model holds numbers that are not finite: start from sound weights")
