"""How many entries may be active. Budgets are integers and are met exactly."""

from collections.abc import Mapping, Sequence
from math import prod


def total(density: float, num_entries: int, num_head: int) -> int:
    """Body entries to choose so that body and head together are `density` of the model (FISH mask, section 4).

    The head is new for the task, so it is always trained whole and its size is charged to the budget:
    `int(density * num_entries) - num_head`, as in the authors' code.

    Args:
        density: active fraction of all entries, in (0, 1].
        num_entries: entries of the whole model, head included.
        num_head: entries of the head.
    Raises:
        ValueError: density out of range, or the head alone uses up the budget.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must be in (0, 1], got {density}")
    budget = int(density * num_entries)
    if budget <= num_head:
        raise ValueError(
            f"density {density} allows {budget:,} of {num_entries:,} entries, but the head alone has {num_head:,}: "
            f"use a density above {num_head / num_entries:.3g}, a smaller head, or name fewer head parameters"
        )
    return budget - num_head


def check_sparsity(sparsity: float) -> None:
    """Raise a ValueError for a sparsity outside [0, 1)."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}")


def remaining(sparsity: float, num_entries: int) -> int:
    """Entries left when the share `sparsity` of `num_entries` is removed, rounded to whole entries.

    Raises:
        ValueError: sparsity out of range, or nothing would be left.
    """
    check_sparsity(sparsity)
    kept = num_entries - round(sparsity * num_entries)
    if not kept:
        raise ValueError(f"sparsity {sparsity} leaves nothing of {num_entries:,} entries")
    return kept


def uniform(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """`total` entries shared out so that every tensor has the same density, to the entry.

    Args:
        sizes: tensor -> number of its entries.
    """
    density = total / sum(sizes.values())
    return _whole({name: density * size for name, size in sizes.items()}, sizes, total)


def erdos_renyi(
    shapes: Mapping[str, Sequence[int]], total: int, *, power: float = 1.0, matrix_dims: int | None = None
) -> dict[str, int]:
    """`total` entries shared out by Erdos-Renyi densities, eps * (sum of dims / product of dims)^power.

    ERK of Evci et al. (2020, arXiv 1911.11134, section 3); with matrices, the ER of Mocanu et al. (2018). A tensor
    whose density would exceed 1 is dense, and eps is found again for the others.

    Args:
        power: 1 as published; 0 gives every tensor the same density.
        matrix_dims: of how many last dimensions the formula speaks, where tensors are stacks of matrices.
    """
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    raw = {}
    for name, shape in shapes.items():
        dims = shape[-matrix_dims:] if matrix_dims else shape
        raw[name] = (sum(dims) / prod(dims)) ** power
    dense: set[str] = set()
    while True:
        free = total - sum(sizes[name] for name in dense)
        weight = sum(raw[name] * sizes[name] for name in sizes.keys() - dense)
        eps = free / weight if weight else 0.0
        # those tied at the largest density become dense together, as in the authors' code
        largest = max((raw[name] for name in sizes.keys() - dense), default=0.0)
        if eps * largest <= 1:
            break
        dense |= {name for name in sizes if raw[name] == largest}
    quotas = {name: float(size) if name in dense else eps * raw[name] * size for name, size in sizes.items()}
    return _whole(quotas, sizes, total)


def _whole(quotas: Mapping[str, float], sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Quotas as whole numbers with the sum `total`: the largest remainders are rounded up, earlier names first."""
    counts = {name: min(int(quota), sizes[name]) for name, quota in quotas.items()}
    missing = total - sum(counts.values())
    by_remainder = sorted(quotas, key=lambda name: counts[name] - quotas[name])
    for name in [name for name in by_remainder if counts[name] < sizes[name]][:missing]:
        counts[name] += 1
    assert sum(counts.values()) == total
    return counts
