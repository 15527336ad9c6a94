"""Random numbers as a function of (seed, names): the same on every rank, in any order, after any resumption."""

import hashlib

import torch


def seeded(seed: int, *keys: str | int) -> torch.Generator:
    """A CPU generator that depends on the seed and the keys alone; the global random state is not touched."""
    digest = hashlib.sha256(repr((seed, *keys)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=False) >> 1)
