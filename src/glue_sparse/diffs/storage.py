"""What several diffs take on disk, and which tensors they leave alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from glue_sparse.diffs.diff import SparseDiff

_KEY_BIAS = re.compile(r"\b(key|k_lin|k_proj)\.bias$")


@dataclass(frozen=True)
class Storage:
    """Bytes that n tasks take on disk."""

    model: int
    """One whole model."""
    diffs: tuple[int, ...]
    """The diff of each task."""

    @property
    def shared(self) -> int:
        """One base model and a diff per task."""
        return self.model + sum(self.diffs)

    @property
    def separate(self) -> int:
        """A model of its own for each task."""
        return self.model * len(self.diffs)


def storage(diffs: Sequence[SparseDiff]) -> Storage:
    """What several diffs of one base model take, tensors alone, beside as many whole models."""
    return Storage(max(map(_model_bytes, diffs)), tuple(diff.nbytes for diff in diffs))


def _model_bytes(diff: SparseDiff) -> int:
    masked = sum(torch.Size(shape).numel() for shape in diff.shapes.values())
    return masked * getattr(torch, diff.info.dtype).itemsize + sum(tensor.nbytes for tensor in diff.whole.values())


def emptied(diff: SparseDiff) -> tuple[int, int]:
    """(masked tensors without a stored entry, those of them that are biases of attention keys).

    The gradient of a key's bias is exactly zero, since the softmax does not see a shift that all its inputs share.
    """
    empty = [name for name in diff.shapes if not len(diff.indices.get(name, ()))]
    return len(empty), sum(bool(_KEY_BIAS.search(name)) for name in empty)
