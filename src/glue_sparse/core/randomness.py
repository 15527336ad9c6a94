"""Random numbers as a function of (seed, names): the same on every rank, in any order, after any resumption."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

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
