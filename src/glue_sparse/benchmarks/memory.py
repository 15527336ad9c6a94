"""Most memory that a process takes within a block, and its seconds: resident memory, or that of tensors on a GPU."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Used:
    """What a block took.

    Attributes:
        seconds: by the clock.
        peak: most bytes within it, whole process.
        after: bytes after it.
    """

    seconds: float = 0.0
    peak: int = 0
    after: int = 0


def check(device: torch.device) -> None:
    """Raise a ValueError where this system does not say how much memory a process has taken within a block."""
    if device.type == "cuda":
        return
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError as error:
        raise ValueError("this system does not say what a process takes at most (/proc/self/clear_refs): measure on "
                         "Linux, or on a GPU") from error  # fmt: skip


def now(device: torch.device) -> int:
    """Bytes that the process, or its tensors on a GPU, take now."""
    gc.collect()
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _status("VmRSS")


@contextmanager
def used(device: torch.device) -> Iterator[Used]:
    """What the block takes; the fields are filled when it ends."""
    found, started = Used(), 0.0
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _CLEAR.write_text("5", encoding="ascii")  # the high-water mark becomes what is resident now
    started = time.perf_counter()
    yield found
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    found.seconds = time.perf_counter() - started
    found.peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")
    found.after = now(device)


def _status(key: str) -> int:
    line = next(line for line in _STATUS.read_text(encoding="utf-8").splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])
