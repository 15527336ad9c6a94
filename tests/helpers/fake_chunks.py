"""Chunks of a device check that end in every way; in a module of its own, which a new process imports by name."""

import os
import time
from collections.abc import Callable
from typing import Any

from glue_sparse.benchmarks.device.part import Part, Table, Told
from glue_sparse.benchmarks.device.worker import Source


def good(told: Told) -> Part:
    """A table with the number of the process."""
    table = Table("found", ("process", "steps"), [(str(os.getpid()), str(told.steps))])
    return Part([table], {"process": os.getpid(), "endless": float("inf")})


def wrong(told: Told) -> Part:
    """Something that is not as it must be."""
    return Part([], {}, wrong="1 of 2 layers is off")


def absent(told: Told) -> Part:
    """Nothing to do it with."""
    return Part([], {}, missing="no GPU is here")


def raises(told: Told) -> Part:
    """An error of two lines."""
    raise RuntimeError("illegal memory access\nand more")


def crashes(told: Told) -> Part:
    """The end of the process."""
    os._exit(7)


def hangs(told: Told) -> Part:
    """No end."""
    time.sleep(600)
    return Part([], {})


CHUNKS: dict[str, Callable[[Told], Part]] = {
    "good": good, "wrong": wrong, "absent": absent, "raises": raises, "crashes": crashes, "hangs": hangs,
    "last": good,
}  # fmt: skip


def about() -> dict[str, Any]:
    """What is here."""
    return {"device": "cpu", "card": "a chip", "versions": {"torch": "2"}}


def find(name: str, quick: bool) -> Callable[[Told], Part]:
    """By name."""
    return CHUNKS[name]


SOURCE = Source(find, about)
