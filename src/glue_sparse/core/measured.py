"""Numbers that a machine finds by measuring itself once, and keeps on disk: what is decided by them stays decided.

They lie in `$XDG_CACHE_HOME/glue_sparse` (`~/.cache/glue_sparse`), a file for each kind of device and versions of torch
and Triton. Ranks of a run take the number that one of them has told first, and keep that.
"""

import json
import logging
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from glue_sparse.core import ranks
from glue_sparse.kernels import backend
from glue_sparse.writing.files import cache_folder, json_text, write_text

logger = logging.getLogger(__name__)

_SECONDS_TO_WAIT = 120
_known: dict[tuple[str, str], float] = {}
_turn = threading.Lock()


def number(name: str, device: str, measure: Callable[[], float], default: float) -> float:
    """A number that belongs to a kind of device; measured where none is kept, by one process of a machine at a time.

    Args:
        name: what is measured, in one word for each set of circumstances.
        device: the device in words.
        measure: called at most once in a process; raises a RuntimeError where it cannot measure now.
        default: taken, for this process, where measuring fails, or where the number cannot be kept: one that is not
            might be another one in the next run.
    """
    with _turn:
        if (device, name) not in _known:
            _known[device, name] = _agreed(name, device, measure, default)
        return _known[device, name]


def _agreed(name: str, device: str, measure: Callable[[], float], default: float) -> float:
    try:
        own = _kept(place(device), name, measure)
    except (OSError, RuntimeError) as error:
        logger.warning("%s is taken to be %g on this %s, since it could not be measured and kept: %s", name, default,
                       device, str(error).splitlines()[0])  # fmt: skip
        own = default
    agreed = ranks.first_told(f"{device}/{name}", own)
    if agreed != own:
        with suppress(OSError, RuntimeError):
            _keep(place(device), name, agreed)
    return agreed


def place(device: str) -> Path:
    """Where the numbers of a device are kept; a RuntimeError where the user has no home."""
    words = f"{device} torch {torch.__version__} triton {backend.version()}"
    return cache_folder() / (re.sub(r"[^\w.+-]+", "_", words) + ".json")


def _kept(path: Path, name: str, measure: Callable[[], float]) -> float:
    """The number on disk, put there now if there is none."""
    if (found := _numbers(path).get(name)) is not None:
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(Timeout), FileLock(path.with_suffix(".lock"), timeout=_SECONDS_TO_WAIT):
        if (found := _numbers(path).get(name)) is None:  # nobody has measured it meanwhile
            found = measure()
            _keep(path, name, found)
        return found
    raise OSError(f"another process has held {path.with_suffix('.lock')} for {_SECONDS_TO_WAIT} seconds")


def _numbers(path: Path) -> dict[str, float]:
    """What a file holds; nothing where there is none, or where it is damaged, so that it is measured anew."""
    try:
        held = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # no JSON, or no text
        return {}
    items = held.items() if isinstance(held, dict) else ()
    return {name: float(one) for name, one in items if isinstance(one, int | float) and not isinstance(one, bool)}


def _keep(path: Path, name: str, found: float) -> None:
    write_text(path, json_text({**_numbers(path), name: found}, "measured numbers", indent=1, sort_keys=True))
