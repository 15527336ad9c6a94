"""What is here, in words: the device, its driver, and versions."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from glue_sparse.benchmarks.machine import DEVICE

PACKAGES = ("glue_sparse", "torch", "triton", "transformers", "accelerate", "peft")
"""Those that decide what is measured."""


def machine() -> dict[str, Any]:
    """Device, card, driver, memory in bytes, cores, threads and versions; empty where there is no such thing."""
    return {
        "device": DEVICE.type, "card": card(), "driver": driver(), "memory": memory(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "versions": versions(),
    }  # fmt: skip


def card() -> str:
    """The name of the GPU, or of the processor."""
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name(DEVICE)
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def driver() -> str:
    """Version of the GPU's driver, as its own tool says; empty without one."""
    tool = shutil.which("nvidia-smi") if DEVICE.type == "cuda" else None
    if not tool:
        return ""
    asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said[0] if said else ""


def memory() -> int:
    """Bytes of the GPU's memory, or of this machine's."""
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_properties(DEVICE).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def versions() -> dict[str, str]:
    """Package -> version, of those that are installed, and of CUDA where torch has it."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | ({"cuda": torch.version.cuda} if torch.version.cuda else {})
