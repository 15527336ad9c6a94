"""Random numbers of gates: the bits that the documentation says, in any piece, and what statistics say of them."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from glue_sparse.core.randomness import seed_of
from glue_sparse.methods.gates.noise import Noise

CPU = torch.device("cpu")
MANY = 1 << 20
LEAST = 1e-5
"""Of a p-value: a fair test of this file's hundreds falls below it once in hundreds of runs, and seeds are fixed."""
LAGS = (1, 2, 3, 7, 16, 128, 384, 1024, 1536, 1 << 15, 1 << 16, 1 << 19)
"""Neighbours in a row, in a column of usual widths, and at powers of two, where multiplied counters are weakest."""


def numbers(seed: int = 0, step: int = 0, name: str = "w", start: int = 0, count: int = MANY) -> torch.Tensor:
    return Noise(seed, "gates", step, name, longest=count, device=CPU)(start, count)


def written_out(seed: int, position: int) -> float:
    """The documented formula for one number, in Python's integers and NumPy's float32."""
    key, low = seed_of(seed, "gates", 0, "w"), (1 << 32) - 1
    x = (0x9E3779B9 * position + (key & low)) & low
    x = ((x ^ (x >> 16)) * 0x85EBCA6B + (key >> 32)) & low
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & low
    signed = x - (1 << 32) if x >> 31 else x
    return float(np.float32(0.5) + np.float32(signed) * np.float32(2.0**-32))


@pytest.mark.parametrize("start", [0, 1, 31_999, (1 << 31) - 2, (1 << 32) - 2])
def test_numbers_are_those_of_the_formula(start: int):
    found = numbers(5, start=start, count=200).tolist()
    assert found == [written_out(5, start + offset) for offset in range(200)]


def test_any_piece_can_be_made_alone():
    whole = numbers(count=5000)
    for first, last in pairwise((0, 1, 7, 1000, 1001, 4999, 5000)):
        assert torch.equal(numbers(start=first, count=last - first), whole[first:last])


def test_known_numbers():
    """Of version 2: whoever changes them has to change `VERSION` too."""
    assert numbers(count=4).tolist() == [
        0.9777489304542542,
        0.9861201047897339,
        0.07155060768127441,
        0.36988651752471924,
    ]


def chance_of_counts(counts: np.ndarray) -> float:
    return float(stats.chisquare(counts).pvalue)


def independent(one: np.ndarray, other: np.ndarray) -> float:
    """The lesser p-value of: no correlation; all pairs of leading four bits equally often."""
    r = float(np.corrcoef(one, other)[0, 1])
    pairs = np.bincount((one * 16).astype(int).clip(0, 15) * 16 + (other * 16).astype(int).clip(0, 15), minlength=256)
    return min(2 * float(stats.norm.sf(abs(r) * math.sqrt(len(one)))), chance_of_counts(pairs))


@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_are_uniform(seed: int):
    u = numbers(seed).double().numpy()
    assert u.min() >= 0 and u.max() <= 1
    assert stats.kstest(u, "uniform").pvalue > LEAST
    bits = (u * 2**20).astype(np.int64)
    for bit in range(20):
        share = float(((bits >> bit) & 1).sum())
        assert 2 * stats.norm.sf(abs(share - MANY / 2) / math.sqrt(MANY / 4)) > LEAST, bit
    rows = u.reshape(-1, 1024).mean(1)  # sums over pieces scatter as sums of independent numbers do
    assert stats.kstest((rows - 0.5) * math.sqrt(12 * 1024), "norm").pvalue > LEAST


@pytest.mark.parametrize("seed", [0, 1])
def test_neighbours_are_independent(seed: int):
    u = numbers(seed).double().numpy()
    for lag in LAGS:
        assert independent(u[:-lag], u[lag:]) > LEAST, lag
    leading = (u * 16).astype(int).clip(0, 15)
    triples = np.bincount(leading[:-2] * 256 + leading[1:-1] * 16 + leading[2:], minlength=4096)
    assert chance_of_counts(triples) > LEAST


@pytest.mark.parametrize(
    "other",
    [lambda n: numbers(0, n + 1), lambda n: numbers(n + 1, 0), lambda n: numbers(name=f"layer.{n}.weight")],
    ids=["steps", "seeds", "names"],
)
def test_steps_seeds_and_names_are_independent(other: Callable[[int], torch.Tensor]):
    before = numbers().double().numpy()
    for n in range(6):
        after = other(n).double().numpy()
        assert independent(before, after) > LEAST
        before = after
