"""The file of patterns in a run's folder: how long each tile of each tensor was active. Loads no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glue_sparse.core.names import block_of, match
from glue_sparse.writing import seals
from glue_sparse.writing.fields import typed
from glue_sparse.writing.seals import Facts, reading

PATTERNS = "patterns.safetensors"
"""In a run's folder: for each tensor the number of intervals between updates that each tile was active in."""
PATTERNS_FORMAT = "glue_sparse patterns"


@dataclass(frozen=True, kw_only=True)
class PatternFacts(Facts):
    """What the header says."""

    block_size: int
    """Side of the tiles."""


def patterns(run: Path) -> dict[str, np.ndarray]:
    """Tensor -> int16 [rows / b, columns / b], intervals between updates that each tile was active in.

    Raises:
        ValueError: the run's folder holds none, or a damaged file.
    """
    path = run / PATTERNS
    if not path.is_file():
        raise ValueError(f"{run} holds no {PATTERNS}: give runs whose active entries move")
    content = seals.read(path, PATTERNS_FORMAT)
    found: dict[str, np.ndarray] = {}
    with reading(path):
        typed(PatternFacts, content.facts, "its header")
        for name, one in content.tensors.items():
            if one.dtype != "I16":
                raise ValueError(f"{name} is no count of intervals")
            begin, end = one.data_offsets
            found[name] = np.frombuffer(content.data[begin:end], np.int16).reshape(one.shape)
            if found[name].size and found[name].min() < 0:
                raise ValueError(f"{name} has counts below 0")
    return found


def one_of(shapes: Mapping[str, Sequence[int]], pattern: str | None) -> str:
    """The one tensor that a name or a shell pattern means; by default `second_expansion`."""
    if pattern is None:
        return second_expansion(shapes)
    fitting = [pattern] if pattern in shapes else list(match(tuple(shapes), (pattern,)))
    if len(fitting) > 1:
        raise ValueError(f"{pattern} fits {len(fitting)} tensors, such as {fitting[0]}: name one of them")
    return fitting[0]


def second_expansion(shapes: Mapping[str, Sequence[int]]) -> str:
    """The matrix of the second block with the most outputs per input, of a BERT the first one of its FFN.

    The block of most outputs where blocks are not numbered, and the last where there is only one.
    """
    blocks = sorted({block_of(name) for name in shapes}, key=lambda block: (len(block), block))
    chosen = blocks[min(1, len(blocks) - 1)]
    inside = [name for name in sorted(shapes) if block_of(name) == chosen and len(shapes[name]) == 2]
    if not inside:
        raise ValueError(f"no matrix is in {chosen or 'this network'}: name a `tensor`")
    return max(inside, key=lambda name: shapes[name][0] / shapes[name][1])
