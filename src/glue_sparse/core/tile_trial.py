"""Up to which density layers compute by tiles on a GPU: see `trials`."""

from collections.abc import Callable

import torch
from torch import Tensor

from glue_sparse.core import trials
from glue_sparse.core.operators import read
from glue_sparse.core.randomness import seeded

DENSITIES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)

Layer = Callable[[Tensor, int], Callable[[Tensor, Tensor], Tensor]]
"""From a [rows, columns] bool mask of tiles and their size to what multiplies inputs by [k b b] values of entries."""


def max_density(
    device: torch.device, dtype: torch.dtype, side: int, block_size: int, tokens: int, layer: Layer,
    timer: trials.Timer | None = None,
) -> float:  # fmt: skip
    """The density up to which a layer with tiles is faster than a masked dense one, forward and backward.

    Args:
        dtype: of the products.
        side: of the matrix, which counts as square; a power of two, see `trials.kind`.
        tokens: rows that it multiplies; the same.
        layer: makes a layer with tiles.
    """

    def ways() -> tuple[Callable[[], object], Callable[[float], Callable[[], object]]]:
        across = side // block_size
        x = torch.ones(tokens, across * block_size, dtype=dtype, device=device, requires_grad=True)
        return _dense(x, DENSITIES[0]), lambda density: _by_tiles(x, across, density, layer)

    word = f"tiles_{str(dtype).removeprefix('torch.')}_{side}_{block_size}_{tokens}"
    return trials.largest_density(word, device, dtype, DENSITIES, ways, timer)


def _dense(x: Tensor, density: float) -> Callable[[], object]:
    """As a masked layer: the gradient of the whole weight, and entries of it."""
    weight = torch.full((x.shape[1], x.shape[1]), 1 / x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    places = torch.arange(0, weight.numel(), round(1 / density), device=x.device)

    def call() -> object:
        y = torch.nn.functional.linear(x, weight)
        grad_x, grad = torch.autograd.grad(y, (x, weight), y.detach())
        return grad_x, read(grad, places, torch.float32)

    return call


def _by_tiles(x: Tensor, across: int, density: float, layer: Layer) -> Callable[[], object]:
    order = torch.randperm(across**2, generator=seeded(0, "tiles"))
    mask = torch.zeros(across**2, dtype=torch.bool)
    mask[order[: max(1, round(density * across**2))]] = True
    block_size = x.shape[1] // across
    values = torch.full((int(mask.sum()) * block_size**2,), 1 / x.shape[1], device=x.device, requires_grad=True)
    multiply = layer(mask.view(across, across).to(x.device), block_size)

    def call() -> object:
        y = multiply(x, values)
        return torch.autograd.grad(y, (x, values), y.detach())

    return call
