"""What this machine can do, by trying: how fast products are in each number format, and whether torch.compile works."""

import os
import subprocess
import sys
import tempfile
import time

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""On which is measured."""
HALVES = ("bfloat16", "float16")
_SIZES = {"cpu": 256, "mps": 1024, "cuda": 4096}
_COMPILE = "import torch; print(torch.compile(lambda x: (2 * x + 1).relu().sum())(torch.ones(8, device='{device}')))"


def devices() -> list[str]:
    """Kinds of devices that torch can use here, the one it would take first."""
    found = ["cuda"] if torch.cuda.is_available() else []
    return [*found, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def wait(device: torch.device) -> None:
    """Until the device has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def speeds(device: str) -> dict[str, float | str]:
    """Half format -> how many times as fast as in float32 a product of two matrices is, or why there is none."""
    whole = _seconds(device, torch.float32)
    found: dict[str, float | str] = {}
    for name in HALVES:
        try:
            found[name] = whole / _seconds(device, getattr(torch, name))
        except (RuntimeError, TypeError) as error:  # what torch raises where a format is missing differs by device
            found[name] = str(error).splitlines()[0]
    return found


def _seconds(device: str, dtype: torch.dtype, repeats: int = 5) -> float:
    """The shortest time of a product; the first call, which sets things up, does not count."""
    size, times = _SIZES[device], []
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    for _ in range(1 + repeats):
        started = time.perf_counter()
        product = matrix @ matrix
        float(product[0, 0])  # waits for the device
        times.append(time.perf_counter() - started)
    return min(times[1:])


def why_no_compile(device: str, limit: float = 120) -> str:
    """Why torch.compile does not work, empty where it does; tried in a process of its own, for so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-c", _COMPILE.format(device=device)], capture_output=True, text=True, timeout=limit,
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"it took longer than {limit:g} seconds"
    if done.returncode == 0:
        return ""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    if any(word in done.stderr for word in ("InvalidCxxCompiler", "CppCompileError", "Failed to find C compiler")):
        return "no working C++ compiler was found: install g++ or clang, or name one in CXX"
    return next((line for line in reversed(said) if "Error" in line), f"it ended with status {done.returncode}")
