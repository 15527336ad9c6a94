"""Up to which density a sparse way to compute is faster than a dense one, where a device has to be tried.

Tried at the first use of a kind of layer: the dense way, and the sparse one with ever more that is active.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from glue_sparse.core import measured
from glue_sparse.kernels import backend

MOST = 4096
"""Sides and tokens of a trial; larger layers are taken to be alike, and a trial should not take much memory."""
_LEAST_GAIN = 1.1
"""Times as fast the sparse way must be: a tie is left to the dense one, which is there anyway."""
_SECONDS, _MOST_CALLS = 0.1, 20
"""Of one way, once its kernels have been compiled."""

Ways = Callable[[], tuple[Callable[[], object], Callable[[float], Callable[[], object]]]]
"""Makes what is timed: the dense way, and from a density to the sparse way."""
Timer = Callable[[Callable[[], object]], float]
"""Seconds of a call."""


def kind(num_entries: int, tokens: int) -> tuple[int, int]:
    """(side, tokens) of the trial for a layer: powers of two, those of a square of no more entries, and at most."""
    return _rounded(lambda size: size**2 <= num_entries), _rounded(lambda size: size <= tokens)


def _rounded(holds: Callable[[int], bool]) -> int:
    """The largest power of two that is as wanted, within what is tried; comparisons alone, which graphs may hold."""
    size = 1
    while 2 * size <= MOST and holds(2 * size):
        size *= 2
    return size


def largest_density(
    word: str, device: torch.device, dtype: torch.dtype, densities: Sequence[float], ways: Ways,
    timer: Timer | None = None,
) -> float:  # fmt: skip
    """The largest density at which, as at all below it, the sparse way is faster; measured once and kept.

    Args:
        word: what is tried, and all that it depends on but the device, in one word.
        dtype: of the products.
        densities: to try, ascending.
        timer: by default waits for the device.
    Returns:
        One of the densities; 0 where the dense way is faster at all of them, or where no kernels run.
    """
    if not backend.available(device, dtype):
        return 0.0

    def tried() -> float:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("a CUDA graph is being recorded, so run a step before that")
        with ThreadPoolExecutor(1) as thread:  # of its own: no autocast, checkpoint or mode of torch is seen there
            try:
                return thread.submit(_tried, densities, ways, timer or _timer(device)).result()
            except Exception as error:  # whatever a compiler or a driver raises: the dense way is still there
                raise RuntimeError(str(error) or type(error).__name__) from error

    return measured.number(word, backend.name(device), tried, 0.0)


def _timer(device: torch.device) -> Timer:
    return lambda call: seconds(call, lambda: backend.wait(device))


def _tried(densities: Sequence[float], ways: Ways, timer: Timer) -> float:
    dense, sparse = ways()
    limit, best = timer(dense), 0.0
    for density in densities:
        if timer(sparse(density)) * _LEAST_GAIN > limit:
            break
        best = density
    return best


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


def as_constant(function: Callable[..., float]) -> Callable[..., float]:
    """Decorates a function whose number graphs take as it is, without a look inside.

    What `torch.compiler.assume_constant_result` does, which would load the compiler with the package.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function
