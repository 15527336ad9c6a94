"""Random numbers as a function of (seed, names): the same on every rank, in any order, after any resumption."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_of(seed: int, *keys: str | int) -> int:
    """A 63-bit seed that depends on the seed and the keys alone."""
    digest = hashlib.sha256(repr((seed, *keys)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=False) >> 1


def seeded(seed: int, *keys: str | int) -> torch.Generator:
    """A CPU generator that depends on the seed and the keys alone; the global random state is not touched."""
    return torch.Generator().manual_seed(seed_of(seed, *keys))


@contextmanager
def new_weights(seed: int, model: str) -> Iterator[None]:
    """Weights drawn within the block depend on the seed and the model's name alone; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, "init", model))
        yield


@contextmanager
def chance_kept() -> Iterator[None]:
    """Random numbers of Python, NumPy and torch, on every device, go on after the block as if it had not been."""
    python, numpy, cpu, devices = random.getstate(), np.random.get_state(), torch.get_rng_state(), _device_states()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        for module, state in devices:
            module.set_rng_state_all(state) if isinstance(state, list) else module.set_rng_state(state)


def _device_states() -> list[tuple[Any, Any]]:
    """(module of torch, random state) of the accelerator, if it is in use: one state, or a list of all devices'."""
    device = torch.accelerator.current_accelerator()
    if device is None:
        return []
    module: Any = torch.get_device_module(device)
    if not getattr(module, "is_initialized", lambda: True)():  # asking would start it
        return []
    return [(module, getattr(module, "get_rng_state_all", module.get_rng_state)())]
