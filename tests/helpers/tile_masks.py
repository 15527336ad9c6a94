"""A mask of tiles, as several tests need it."""

import torch
from torch import Tensor

from glue_sparse.core.randomness import seeded


def tile_mask(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Ragged lines; the last row and the last column are empty where there are several."""
    mask = torch.rand(rows, columns, generator=seeded(seed, "tiles")) < 0.5
    mask[0, 0] = True
    if rows > 1 and columns > 1:
        mask[-1] = mask[:, -1] = False
    return mask
