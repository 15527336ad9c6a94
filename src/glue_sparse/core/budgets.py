"""How many entries may be active. Budgets are integers and are met exactly."""



from collections.abc import Callable, Mapping, Sequence
from math import prod

from glue_sparse.writing.words import check_one_of

Shapes = Mapping[str, Sequence[int]]
Distribution = Callable[[Shapes, float], dict[str, float]]
"""(shape of each tensor, density of all together) -> density of each; a distribution of your own."""


def total(density: float, num_entries: int, num_head: int) -> int:
    """Body entries to choose so that body and head together are `density` of the model (FISH mask, section 4).

    The head is new for the task, so it is always trained whole and its size is charged to the budget:
    `int(density * num_entries) - num_head`, as in the authors' code.

    Args:
        density: active fraction of all entries, in (0, 1].
        num_entries: entries of the whole model, head included.
        num_head: entries of the head that train.
    Raises:
        ValueError: density out of range, or the head alone uses up the budget.
    """
    if not 0 < density <= 1:
        raise ValueError(f"`density` must be in (0, 1], got {density}")
    budget = int(density * num_entries)
    if budget <= num_head:
        raise ValueError(
            f"density {density} allows {budget:,} of {num_entries:,} entries, but the head alone has {num_head:,}: "
            f"use a density above {num_head / num_entries:.3g}, a smaller head, or name fewer head parameters"
        )
    return budget - num_head


def check_room(density: float, budget: int, num_entries: int) -> None:
    """Raise a ValueError where fewer entries may train than a density asks for."""
    if budget > num_entries:
        raise ValueError(f"`density` {density:g} asks for {budget:,} entries, but only {num_entries:,} may become "
                         "active (`tensors` and frozen parameters leave out the others): lower it, or let more "
                         "train")  # fmt: skip


def check_sparsity(sparsity: float) -> None:
    """Raise a ValueError for a sparsity outside [0, 1)."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"`sparsity` must be in [0, 1), got {sparsity}")


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
    return _whole(_balanced(raw, sizes, total), sizes, total)


def shared_out(shapes: Shapes, total: int, distribution: str) -> int | dict[str, int]:
    """`total` entries for all tensors together (`global`), or shared out among them as `uniform` or `erk`."""
    check_one_of("distribution", distribution, ("global", "uniform", "erk"))
    if distribution == "global":
        return total
    if distribution == "uniform":
        return uniform({name: prod(shape) for name, shape in shapes.items()}, total)
    matrices = 2 if all(len(shape) in (2, 3) for shape in shapes.values()) else None
    return erdos_renyi(shapes, total, matrix_dims=matrices)


def _balanced(raw: Mapping[str, float], sizes: Mapping[str, int], total: float) -> dict[str, float]:
    """Quotas proportional to `raw` densities with the sum `total`, none above its tensor's size."""
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
    return {name: float(size) if name in dense else eps * raw[name] * size for name, size in sizes.items()}


def distribute(
    shapes: Shapes,
    density: float,
    distribution: str | Distribution = "uniform",
    *,
    power: float = 1.0,
    custom: Mapping[str, float] | None = None,
    matrix_dims: int | None = None,
) -> dict[str, int]:
    """Entries that each tensor may keep, for networks that are sparse from the start.

    Args:
        shapes: in the order of the network; the first is its first layer.
        density: share of all entries together, in (0, 1].
        distribution: `uniform`; `first_dense`, the first tensor dense and the others at `density` each, so that all
            together have more; `er` (Mocanu et al., 2018), which sees a convolution's channels only; `erk` (Evci et
            al., 2020), which sees its kernel too; or a function of (shapes, density).
        power: of the formula of `er` and `erk`.
        custom: densities of tensors that stand apart. Under `er` and `erk` the others make up for them, so the total
            is still met; the authors' code lets it differ.
        matrix_dims: as for `erdos_renyi`.
    Raises:
        ValueError: a density out of range, an unknown distribution, or a tensor that would keep no entry.
    """
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    for name, one in {"the model": density, **(custom or {})}.items():
        if not 0 < one <= 1:
            raise ValueError(f"`density` must be in (0, 1], got {one} for {name}")
    first = dict.fromkeys(list(shapes)[:1], 1.0) if distribution == "first_dense" else {}
    apart = {name: round(share * sizes[name]) for name, share in {**first, **(custom or {})}.items()}
    rest = {name: shape for name, shape in shapes.items() if name not in apart}
    total = round(density * sum(sizes.values()))
    counts = {**apart, **_distribute(rest, total - sum(apart.values()), density, distribution, power, matrix_dims)}
    counts = {name: counts[name] for name in shapes}
    for name, count in counts.items():
        if not count:
            raise ValueError(f"density {density:g} ({_name_of(distribution)}) leaves nothing of {name}, which has "
                             f"{sizes[name]:,} entries: use a larger density or another distribution")  # fmt: skip
    return counts


def in_tiles(counts: Mapping[str, int], shapes: Shapes, block_size: int) -> dict[str, int]:
    """Counts of entries as the nearest whole number of tiles of `block_size` x `block_size`, in entries.

    Raises:
        ValueError: a tensor that would keep no tile.
    """
    size = block_size**2
    found = {name: int(count / size + 0.5) * size for name, count in counts.items()}
    for name, count in found.items():
        if not count:
            raise ValueError(f"{counts[name] / prod(shapes[name]):.3g} of {name} is less than one of its "
                             f"{prod(shapes[name]) // size} tiles of {block_size}x{block_size}: use a larger `density` "
                             "or smaller tiles")  # fmt: skip
    return found


def _distribute(
    shapes: Shapes, total: int, density: float, distribution: str | Distribution, power: float, matrix_dims: int | None
) -> dict[str, int]:
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    if callable(distribution):
        shares = distribution(shapes, density)
        named = isinstance(shares, Mapping) and shares.keys() == shapes.keys()
        if not named or not all(0 <= share <= 1 for share in shares.values()):
            raise ValueError(f"{_name_of(distribution)} must give each tensor a density in [0, 1], and no other")
        return {name: round(shares[name] * size) for name, size in sizes.items()}
    check_one_of("distribution", distribution, ("uniform", "first_dense", "er", "erk"))
    if distribution in ("uniform", "first_dense"):
        return {name: round(density * size) for name, size in sizes.items()}
    if not 0 <= total <= sum(sizes.values()):
        raise ValueError(f"the densities given for single tensors rule out density {density:g} of all together")
    if distribution == "erk":
        return erdos_renyi(shapes, total, power=power, matrix_dims=matrix_dims)
    channels = {name: shape[-matrix_dims:] if matrix_dims else shape[:2] for name, shape in shapes.items()}
    raw = {name: (sum(dims) / prod(dims)) ** power for name, dims in channels.items()}
    return _whole(_balanced(raw, sizes, total), sizes, total)


def _name_of(distribution: str | Distribution) -> str:
    return distribution if isinstance(distribution, str) else getattr(distribution, "__name__", "the distribution")


def share_out(total: int, claims: Mapping[str, float], space: Mapping[str, int]) -> dict[str, int]:
    """`total` entries shared out in proportion to `claims`, none getting more than its `space`, to the entry.

    What does not fit goes to the others by the same rule, so nothing is lost; without any claim, space decides.

    Raises:
        ValueError: more entries than space, or a claim that is negative or not finite.
    """
    if total > sum(space.values()):
        raise ValueError(f"{total:,} entries do not fit into {sum(space.values()):,} places")
    for name, claim in claims.items():
        if not 0 <= claim < float("inf"):
            raise ValueError(f"the claim of {name} to freed entries is {claim}; it must be finite and not negative")
    quotas: dict[str, float] = {}
    left, open_names = float(total), [name for name in claims if space[name]]
    while open_names:
        sum_claims = sum(claims[name] for name in open_names)
        weights = claims if sum_claims > 0 else space
        unit = left / sum(weights[name] for name in open_names)
        full = [name for name in open_names if unit * weights[name] >= space[name]]
        if not full:
            quotas |= {name: unit * weights[name] for name in open_names}
            break
        quotas |= {name: float(space[name]) for name in full}
        left -= sum(space[name] for name in full)
        open_names = [name for name in open_names if name not in full]
    return _whole({name: quotas.get(name, 0.0) for name in claims}, space, total)


def _whole(quotas: Mapping[str, float], sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Quotas as whole numbers with the sum `total`: the largest remainders are rounded up, earlier names first."""
    counts = {name: min(int(quota), sizes[name]) for name, quota in quotas.items()}
    missing = total - sum(counts.values())
    by_remainder = sorted(quotas, key=lambda name: counts[name] - quotas[name])
    for name in [name for name in by_remainder if counts[name] < sizes[name]][:missing]:
        counts[name] += 1
    assert sum(counts.values()) == total
    return counts


def pattern_of(text: str) -> tuple[int, int]:
    """(kept, group) of a --pattern; ValueError when it is none."""
    kept, colon, group = text.partition(":")
    if not (colon and kept.isdecimal() and group.isdecimal()):
        raise ValueError(f"`pattern` is KEPT:GROUP, for example 2:4 (in quotes in a YAML), not {text!r}")
    return int(kept), int(group)
