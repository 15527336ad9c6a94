"""Square tiles of a matrix: scores of tiles from scores of entries, and masks of tiles as masks of entries."""

from typing import get_args

import torch
from torch import Tensor

from glue_sparse.core.options import Norm
from glue_sparse.writing.words import check_one_of


def check(name: str, shape: torch.Size | tuple[int, ...], block_size: int) -> None:
    """Raise a ValueError unless tiles of `block_size` x `block_size` entries cover a tensor exactly."""
    if block_size < 1:
        raise ValueError(f"`block_size` must be at least 1, got {block_size}")
    if block_size == 1:
        return
    if len(shape) != 2:
        raise ValueError(f"tiles need a matrix, and {name} has shape {tuple(shape)}: use `block_size` 1, or choose "
                         "other `tensors`")  # fmt: skip
    if any(size % block_size for size in shape):
        raise ValueError(f"tiles of {block_size}x{block_size} do not divide {name}, a matrix of {shape[0]}x{shape[1]}: "
                         "choose another `block_size`")  # fmt: skip


def check_norm(norm: str) -> None:
    """Raise a ValueError for an unknown norm."""
    check_one_of("block_norm", norm, get_args(Norm))


def pooled(scores: Tensor, block_size: int, norm: Norm = "l1") -> Tensor:
    """L^p norm of each tile (Dietrich et al., 2021, arXiv 2108.06277, equation 1); a 1x1 tile is its entry, unchanged.

    Args:
        scores: [rows, columns]; any shape for tiles of 1x1.
    Returns:
        [rows / block_size, columns / block_size] float32.
    """
    if block_size == 1:
        return scores
    split = _split(scores.detach().float(), block_size)
    if norm == "linf":
        return split.abs().amax(dim=(1, 3))
    return split.abs().sum(dim=(1, 3)) if norm == "l1" else split.square().sum(dim=(1, 3)).sqrt()


def spread(tiles: Tensor, block_size: int) -> Tensor:
    """What holds for a tile, for each of its entries: [rows / b, columns / b] to [rows, columns]."""
    if block_size == 1:
        return tiles
    return tiles.repeat_interleave(block_size, 0).repeat_interleave(block_size, 1)


def gathered(mask: Tensor, block_size: int) -> Tensor:
    """Mask of tiles, [rows / b, columns / b], from one of entries, [rows, columns], made of whole and empty tiles.

    Raises:
        ValueError: a tile that is partly active.
    """
    if block_size == 1:
        return mask
    found = _split(mask, block_size)
    some = found.any(3).any(1)
    if not torch.equal(some, found.all(3).all(1)):
        raise ValueError(f"the mask is not made of whole tiles of {block_size}x{block_size}")
    return some


def _split(matrix: Tensor, block_size: int) -> Tensor:
    """[rows, columns] to [rows / b, b, columns / b, b]."""
    rows, columns = matrix.shape
    return matrix.reshape(rows // block_size, block_size, columns // block_size, block_size)
