"""What an active weight takes in a file, in this library's layouts and in others."""

from dataclasses import dataclass, replace
from math import log2, prod
from tempfile import TemporaryDirectory

import numpy as np

from glue_sparse.core import gaps
from glue_sparse.diffs.diff import SparseDiff

VALUE = 4
"""Bytes of a float32 number."""
_COORDINATES = 2 * 4
_FLAT = 4


@dataclass(frozen=True)
class Sizes:
    """Bytes of one active weight; tensors stored whole are left out.

    Attributes:
        num_active: how many there are.
        entropy: of a position, where each tensor has as many at random places: no code of such does with less.
        position: of a position as this library stores it.
        float32: of all that its file holds, header included, beside what is whole.
        bfloat16: the same with values of two bytes.
        steps: value, and the step from the position before in the shortest of one, two or four bytes that the tensor
            allows, as LT-SFT has it (Ansell et al., 2022).
        flat: value and flat position of four bytes: layout 1 of this library without its header.
        coordinates: value, row and column of four bytes each, as SHiRA's adapter has it (Bhardwaj et al., 2024).
    """

    num_active: int
    entropy: float
    position: float
    float32: float
    bfloat16: float
    steps: float
    flat: float = VALUE + _FLAT
    coordinates: float = VALUE + _COORDINATES


def sizes(diff: SparseDiff) -> Sizes:
    """Measure a diff; ValueError for one without active entries."""
    if not diff.num_active:
        raise ValueError("this diff has no active entries, only whole tensors")
    sparse, count = replace(diff, whole={}), diff.num_active
    found = {name: indices.numpy() for name, indices in diff.indices.items()}
    code = sum(len(gaps.encode(positions)[0]) for positions in found.values())
    entropy = sum(_entropy(len(positions), prod(diff.shapes[name])) for name, positions in found.items())
    steps = sum(len(positions) * _step_bytes(positions) for positions in found.values())
    with TemporaryDirectory() as folder:
        full, short = (sparse.save_file(folder, kind).stat().st_size for kind in ("float32", "bfloat16"))
    return Sizes(count, entropy / count, code / count, full / count, short / count, VALUE + steps / count)


def _entropy(count: int, size: int) -> float:
    """Bytes that tell which `count` of `size` entries they are."""
    share = count / size if size else 0
    return size * -sum(part * log2(part) for part in (share, 1 - share) if part) / 8


def _step_bytes(positions: gaps.Positions) -> int:
    largest = int(np.diff(positions, prepend=0).max(initial=0))
    return 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4
