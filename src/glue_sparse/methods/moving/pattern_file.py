"""The file of patterns in a run's folder: how long each tile of each tensor was active."""

from pathlib import Path

from torch import Tensor

from glue_sparse.core import tensor_files

PATTERNS = "patterns.safetensors"
"""In a run's folder: for each tensor the number of intervals between updates that each tile was active in."""

PATTERNS_FORMAT = "glue_sparse patterns 1"


def patterns(run: Path) -> dict[str, Tensor]:
    """Tensor -> [rows / b, columns / b], intervals between updates that each tile was active in.

    Raises:
        ValueError: the run's folder holds none.
    """
    if not (run / PATTERNS).is_file():
        raise ValueError(f"{run} holds no {PATTERNS}: give runs whose active entries move")
    return tensor_files.read(run / PATTERNS, PATTERNS_FORMAT)[0]
