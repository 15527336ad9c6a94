"""What `glue-sparse diff pack` and `glue-sparse diff sizes` do."""

from pathlib import Path

import torch

from glue_sparse.core.options import Precision
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.sizes import sizes as measured
from glue_sparse.models.of_diff import load_base, read_diff
from glue_sparse.writing.tables import markdown
from glue_sparse.writing.words import short_names


def pack(diff: str, folder: Path, values: Precision, model: str | None) -> None:
    """Write a diff anew, and say how much of what was learnt its values lose."""
    found = read_diff(diff, model)
    base = None if values == "float32" else load_base(found.info, model)
    path = found.save_pretrained(folder, values, base)
    print(f"wrote {folder}: {path.stat().st_size:,} bytes, {found.num_active:,} active weights")
    if base is not None:
        before, now = found.at_base(base), SparseDiff.from_pretrained(folder, base=base)
        changed, lost = _change(found, before), _change(now, found)
        share = _share(lost, changed)
        print(f"values are off by {lost.abs().max():.2g} at most, and by {share:.3%} of what training changed (RMS)")


def _change(one: SparseDiff, other: SparseDiff) -> torch.Tensor:
    """[k] by how much the values of all tensors differ."""
    return torch.cat([torch.zeros(1), *(one.values[name] - other.values[name] for name in one.values)])


def _share(lost: torch.Tensor, changed: torch.Tensor) -> float:
    norm = float(changed.double().norm())
    return float(lost.double().norm()) / norm if norm else 0.0


def sizes(diffs: list[str]) -> None:
    """A table of bytes per active weight, one column for each diff."""
    found = [measured(read_diff(place)) for place in diffs]
    lines = [("active weights", *(f"{one.num_active:,}" for one in found))]
    lines += [(words, *(f"{getattr(one, name):.2f}" for one in found)) for name, words in _ROWS.items()]
    print(markdown(("bytes of an active weight", *short_names(diffs)), lines))


_ROWS = {
    "entropy": "position: entropy of a random mask",
    "position": "position: here",
    "float32": "file, float32",
    "bfloat16": "file, bfloat16 or differences",
    "steps": "steps in whole bytes (LT-SFT)",
    "flat": "flat positions (layout 1, before its header)",
    "coordinates": "rows and columns (SHiRA)",
}
"""Field of `Sizes` -> what its row says."""
