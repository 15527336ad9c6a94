"""Whether Triton kernels run on a device, and how they are launched.

Modules named `*_code` hold kernels. They import triton, so they are loaded by name, when a kernel is first launched:
torch brings triton with its builds for GPUs, and others need not have it.
"""

import importlib.metadata
import logging
import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

TYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Types that kernels multiply; sums are float32."""
DEVICES = {"cuda"}
"""Kinds of devices, as torch names them; tests add the CPU, where Triton's interpreter runs kernels slowly."""
_ENOUGH_PROGRAMS = 512
"""Programs that keep a large GPU busy; a constant, so that sums are formed in the same order on all GPUs."""


def available(device: torch.device, *dtypes: torch.dtype) -> bool:
    """Whether kernels run on a device, and multiply these types.

    Where they could, but Triton is missing or does not work, one line of the log says why, once.
    """
    return all(dtype in TYPES for dtype in dtypes) and _is_working(device.type, device.index)


@cache
def _is_working(kind: str, index: int | None) -> bool:
    if kind not in DEVICES or kind == "cuda" and (not torch.cuda.is_available() or _is_interpreting()):
        return False
    device = torch.device(kind, index) if index is not None else torch.device(kind)
    reason = "it is not installed" if find_spec("triton") is None else _failure(device)
    if reason:
        logger.warning("Triton does not work here (%s), so sparse layers on a GPU compute with torch's own products, "
                       "which is slower and takes more memory", reason)  # fmt: skip
    return not reason


def _is_interpreting() -> bool:
    """Whether the user lets Triton's interpreter run his kernels, which cannot follow an address into a GPU."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() not in ("", "0", "false", "off")


def _failure(device: torch.device) -> str:
    """Why a first kernel cannot be run, empty where it can; whatever a compiler or a driver raises is a reason."""
    try:
        found = torch.zeros(2, device=device)
        places, values = torch.ones(1, dtype=torch.int32, device=device), torch.ones(1, device=device)
        launch(code("entries").write, (1,), found, places, values, 1, BLOCK=16)
        return "" if found.tolist() == [0.0, 1.0] else "its first kernel gave a wrong result"
    except Exception as error:
        return (str(error).splitlines() or [type(error).__name__])[0]


def code(name: str) -> Any:
    """The module of the kernels of this name."""
    return import_module(f"{__package__}.{name}_code")


@cache
def name(device: torch.device) -> str:
    """A kind of device in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def version() -> str:
    """Of Triton; empty where it is not installed."""
    return importlib.metadata.version("triton") if find_spec("triton") is not None else ""


def wait(device: torch.device) -> None:
    """Return when a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def launch(kernel: Any, grid: tuple[int, ...], like: Tensor, *others: Any, **constants: Any) -> None:
    """Start a kernel on the device of the tensor `like`, which is its first argument; `others` follow it."""
    with torch.cuda.device_of(like):
        kernel[grid](like, *others, **constants)


def precision() -> str:
    """How kernels multiply float32: as torch's own products do at this time."""
    settings: Any = torch.backends.cuda.matmul
    if hasattr(settings, "fp32_precision"):
        return "tf32" if settings.fp32_precision == "tf32" else "ieee"
    return "tf32" if settings.allow_tf32 else "ieee"  # torch < 2.9


def block(number: int, least: int = 16, most: int = 128) -> int:
    """The power of two for blocks of a dimension: what holds `number`, within bounds."""
    return min(max(1 << max(number - 1, 0).bit_length(), least), most)


def parts(programs: int, length: int, least: int) -> int:
    """Into how many parts to cut sums over `length`, `least` or more each, where there are few programs."""
    return max(1, min(_ENOUGH_PROGRAMS // max(programs, 1), length // least))


def ceil(number: int, size: int) -> int:
    """How many pieces of a size cover a number."""
    return -(-number // size)
