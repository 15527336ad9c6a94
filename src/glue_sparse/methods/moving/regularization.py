"""What pulls the active entries of sparse tensors towards zero: Group Lasso on tiles, a weight decay of their own."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from glue_sparse.core import tiles
from glue_sparse.core.active import active_tensors
from glue_sparse.methods.moving.initial import WEIGHT_STD

EPSILON = 1e-6
"""Added to a tile's sum of squares, so that a tile of zeros has a pull."""


def tile_numbers(indices: Tensor, shape: torch.Size, block_size: int) -> Tensor:
    """[k] number of the tile that each entry is in, counted along rows of tiles; for 1x1 that of the entry itself.

    Args:
        indices: [k] flat positions in a matrix of `shape`, of any shape for 1x1.
    Raises:
        ValueError: tiles that do not cover a matrix.
    """
    tiles.check("this tensor", shape, block_size)
    if block_size == 1:
        return indices
    rows, columns = indices // shape[1], indices % shape[1]
    return rows // block_size * (shape[1] // block_size) + columns // block_size


def group_lasso_pull(values: Tensor, numbers: Tensor, num_tiles: int, block_size: int) -> Tensor:
    """[k] gradient of the Group Lasso, w_std sqrt(B) W_ij / sqrt(sum over the tile of W_rs^2 + eps).

    Dietrich et al., 2021 (arXiv 2108.06277), equation 2 without learning rate and strength; w_std is the standard
    deviation of new weights, 0.02. The paper calls sqrt(B) the root of the block size; B is the number of a tile's
    entries here, 256 for 16x16, since then a tile of new weights is pulled as by weight decay, which is what the
    factors are for.

    Args:
        values: [k] entries, with zeros elsewhere in their tiles.
        numbers: [k] number of the tile of each.
        num_tiles: of the whole tensor.
    """
    squares = values.new_zeros(num_tiles).index_add_(0, numbers, values.square())
    return WEIGHT_STD * block_size * values / (squares[numbers] + EPSILON).sqrt()


@torch.no_grad()
def apply(model: nn.Module, optimizer: torch.optim.Optimizer, strength: float, block_size: int) -> None:
    """Pull the active entries of all sparse tensors before an optimizer's step, apart from gradients and their moments.

    Each moves by its tensor's learning rate x strength x pull, as the weight decay of AdamW does. Sums are over the
    active entries of a tile.

    Args:
        strength: the paper's lambda_group, at least 0.
        block_size: side of the square tiles; with 1 each entry is a tile.
    Raises:
        ValueError: tiles do not fit a tensor, or the optimizer does not train it.
    """
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, entries in active_tensors(model):
        if not entries.num_active:
            continue
        if id(entries.values) not in rates:
            raise ValueError(f"the optimizer does not train {name}: build it from model.parameters()")
        tiles.check(name, entries.shape, block_size)
        values = entries.values
        if block_size == 1:
            numbers, num_tiles = torch.arange(len(values), device=values.device), len(values)
        else:
            numbers = tile_numbers(entries.indices, entries.shape, block_size)
            num_tiles = math.prod(entries.shape) // block_size**2
        values.sub_(rates[id(values)] * strength * group_lasso_pull(values, numbers, num_tiles, block_size))


def sparse_group(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The sparse tensors with a weight decay of their own, for `SparseMethod.param_groups`; clipped with all others."""
    values = [entries.values for _, entries in active_tensors(model)]
    return [{"params": values, "weight_decay": weight_decay}] if values else []
