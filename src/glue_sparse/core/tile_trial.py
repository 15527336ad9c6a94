"""Up to which density computing by tiles is faster than with a masked dense matrix, where a device has to be tried.

Tried at the first use of a kind of layer: a dense one, and some with ever more tiles, each forward and backward.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from glue_sparse.core import measured
from glue_sparse.core.operators import read
from glue_sparse.core.randomness import seeded
from glue_sparse.kernels import backend

DENSITIES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
MOST = 4096
"""Sides and tokens of a trial; larger layers are taken to be alike, and a trial should not take much memory."""
_LEAST_GAIN = 1.1
"""Times as fast tiles must be: a tie is left to the dense product, which is there anyway."""
_SECONDS, _MOST_CALLS = 0.1, 20
"""Of one layer, once its kernels have been compiled."""

Layer = Callable[[Tensor, int], Callable[[Tensor, Tensor], Tensor]]
"""From a [rows, columns] bool mask of tiles and their size to what multiplies inputs by [k b b] values of entries."""
Timer = Callable[[Callable[[], object]], float]
"""Seconds of a call."""


def max_density(
    device: torch.device, dtype: torch.dtype, side: int, block_size: int, tokens: int, layer: Layer,
    timer: Timer | None = None,
) -> float:  # fmt: skip
    """The density up to which tiles win on a GPU; 0 where they never do, or where no kernels run.

    Args:
        dtype: of the products.
        side: of the matrix, which counts as square.
        tokens: rows that it multiplies.
        layer: makes a layer with tiles.
    """
    if not backend.available(device, dtype):
        return 0.0
    word = f"tiles_{str(dtype).removeprefix('torch.')}_{side}_{block_size}_{tokens}"

    def tried() -> float:
        return _apart(device, lambda: _tried(device, dtype, side, block_size, tokens, layer, timer))

    return measured.number(word, backend.name(device), tried, 0.0)


def _apart(device: torch.device, do: Callable[[], float]) -> float:
    """What `do` gives in a thread of its own, where no autocast, checkpoint or mode of torch of this one is seen.

    Raises:
        RuntimeError: a graph is being recorded, within which nothing can be timed.
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("a CUDA graph is being recorded: run a step before that")
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(do).result()


def _tried(
    device: torch.device, dtype: torch.dtype, side: int, block_size: int, tokens: int, layer: Layer,
    timer: Timer | None,
) -> float:  # fmt: skip
    """See `max_density`.

    Raises:
        RuntimeError: there is no room for it.
    """
    timer = timer or (lambda call: seconds(call, lambda: backend.wait(device)))
    across = side // block_size
    order = torch.randperm(across**2, generator=seeded(0, "tiles")).to(device)
    x = torch.ones(tokens, across * block_size, dtype=dtype, device=device, requires_grad=True)
    dense = timer(_dense_pass(x, DENSITIES[0]))
    best = 0.0
    for density in DENSITIES:
        mask = torch.zeros(across**2, dtype=torch.bool, device=device)
        mask[order[: max(1, round(density * across**2))]] = True
        if timer(_pass(x, mask.view(across, across), block_size, layer)) * _LEAST_GAIN > dense:
            break
        best = density
    return best


def _dense_pass(x: Tensor, density: float) -> Callable[[], object]:
    """As a masked layer: the gradient of the whole weight, and entries of it."""
    weight = torch.full((x.shape[1], x.shape[1]), 1 / x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    places = torch.arange(0, weight.numel(), round(1 / density), device=x.device)

    def call() -> object:
        y = torch.nn.functional.linear(x, weight)
        grad_x, grad = torch.autograd.grad(y, (x, weight), y.detach())
        return grad_x, read(grad, places, torch.float32)

    return call


def _pass(x: Tensor, mask: Tensor, block_size: int, layer: Layer) -> Callable[[], object]:
    count = int(mask.sum()) * block_size**2
    values = torch.full((count,), 1 / x.shape[1], device=x.device, requires_grad=True)
    multiply = layer(mask, block_size)

    def call() -> object:
        y = multiply(x, values)
        return torch.autograd.grad(y, (x, values), y.detach())

    return call


def seconds(call: Callable[[], object], wait: Callable[[], object]) -> float:
    """The shortest time of a call, waited for; the first two, which compile and set things up, do not count."""
    call()
    call()
    wait()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while not times or time.perf_counter() < end and len(times) < _MOST_CALLS:
        started = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - started)
    return min(times)
