"""What moving entries have explored: shares, and their state in a checkpoint."""

from collections.abc import Mapping

from torch import Tensor, nn

from glue_sparse.core.active import active_tensors
from glue_sparse.core.masks import pack, unpack
from glue_sparse.core.stored import check_bits


def explored_state(model: nn.Module) -> dict[str, Tensor]:
    """What has been explored, one bit per entry; nothing before the first move."""
    found = {name: entries.explored for name, entries in active_tensors(model)}
    return {f"explored/{name}": pack(mask) for name, mask in found.items() if mask is not None}


def load_explored(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Take over what `explored_state` gave."""
    for name, entries in active_tensors(model):
        if (bits := tensors.get(f"explored/{name}")) is not None:
            entries.explored = unpack(bits, entries.shape).to(entries.indices.device)


def checked_explored(name: str, bits: Tensor, active: Tensor) -> Tensor:
    """The mask that `explored_state` packed; ValueError unless it is one, and has all that is active now.

    Args:
        active: the mask of the tensor `name`.
    """
    check_bits(f"explored/{name}", bits, active.numel())
    explored = unpack(bits, active.shape)
    if not (explored | ~active).all():
        raise ValueError(f"{name} has active entries that were never explored")
    return explored


def explored_share(model: nn.Module) -> float:
    """Share of the masked entries that have been active so far."""
    counts = [(entries.num_explored, entries.shape.numel()) for _, entries in active_tensors(model)]
    return sum(found for found, _ in counts) / max(1, sum(size for _, size in counts))


def mean_explored_share(model: nn.Module) -> float:
    """The same as a mean over tensors, whatever their size ("DOF coverage" of Dietrich et al., 2021)."""
    return mean_of(explored_shares(model))


def explored_shares(model: nn.Module) -> dict[str, float]:
    """Masked tensor -> share of its entries that have been active so far."""
    return {name: entries.num_explored / entries.shape.numel() for name, entries in active_tensors(model)}


def mean_of(shares: Mapping[str, float]) -> float:
    """Mean over tensors; 0 without any."""
    return sum(shares.values()) / max(1, len(shares))
