"""Up to which density a weight's gradient is formed at its active entries alone, on a GPU: see `trials`."""

from collections.abc import Callable

import torch
from torch import Tensor

from glue_sparse.core import trials
from glue_sparse.core.operators import read
from glue_sparse.core.randomness import seeded
from glue_sparse.kernels import sampled

DENSITIES = (1 / 1024, 1 / 512, 1 / 256, 1 / 128, 1 / 64, 1 / 32, 1 / 16)


def max_density(
    device: torch.device, dtype: torch.dtype, side: int, tokens: int, timer: trials.Timer | None = None
) -> float:
    """The density up to which sampled products are faster than a dense gradient whose entries are then read.

    Args:
        dtype: of gradients and inputs.
        side: of the matrix, which counts as square; a power of two, see `trials.kind`.
        tokens: that are summed over; the same.
    """

    def ways() -> tuple[Callable[[], object], Callable[[float], Callable[[], object]]]:
        grad, x = (torch.ones(tokens, side, dtype=dtype, device=device) for _ in range(2))
        order = torch.randperm(side**2, generator=seeded(0, "entries"))
        places = order[: round(DENSITIES[0] * side**2)].sort().values.to(device)
        return lambda: read(grad.t() @ x, places, torch.float32), lambda density: _sampled(grad, x, order, density)

    word = f"sampled_{str(dtype).removeprefix('torch.')}_{side}_{tokens}"
    return trials.largest_density(word, device, dtype, DENSITIES, ways, timer)


def _sampled(grad: Tensor, x: Tensor, order: Tensor, density: float) -> Callable[[], object]:
    side = x.shape[1]
    indices = order[: max(1, round(density * side**2))].sort().values
    starts = torch.searchsorted(indices, torch.arange(0, (side + 1) * side, side)).int().to(x.device)
    columns = (indices % side).int().to(x.device)
    return lambda: sampled.sampled_product(grad, x, starts, columns)
