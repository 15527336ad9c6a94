"""The file of masks: flat positions of the active entries, and what the others hold."""

from dataclasses import dataclass
from pathlib import Path

import torch

from glue_sparse.core import tensor_files
from glue_sparse.core.chosen import Chosen, positions_of, shape_of
from glue_sparse.core.masks import Masks
from glue_sparse.core.options import Inactive
from glue_sparse.core.stored import check_positions, check_shape
from glue_sparse.writing.fields import typed
from glue_sparse.writing.seals import Facts, reading

FORMAT = "glue_sparse masks"

FILE_NAME = "masks.safetensors"
"""In the folder of a pruned model."""


@dataclass(frozen=True, kw_only=True)
class MaskFacts(Facts):
    """What the header says."""

    shapes: dict[str, tuple[int, ...]]
    inactive: Inactive


def save(masks: Masks, path: str | Path, inactive: Inactive = "frozen") -> None:
    """Write masks as flat int64 indices of the active entries (safetensors), and what the other entries hold."""
    tensors = {name: positions_of(masks, name).cpu() for name in masks}
    shapes = {name: list(shape_of(masks, name)) for name in masks}
    tensor_files.write(Path(path), FORMAT, tensors, {"shapes": shapes, "inactive": inactive})


def load(path: str | Path) -> tuple[Masks, Inactive]:
    """Read what `save` wrote: the masks, and what inactive entries hold.

    Args:
        path: the file, or the folder of a pruned model, in which it is called `FILE_NAME`.
    Raises:
        ValueError: missing, damaged or foreign file.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    tensors, stored = tensor_files.read(path, FORMAT)
    with reading(path):
        facts = typed(MaskFacts, stored, "its header")
        if tensors.keys() != facts.shapes.keys():
            raise ValueError(f"it names {min(tensors.keys() ^ facts.shapes.keys())} in one place alone")
        for name, positions in tensors.items():
            check_positions(name, positions, check_shape(name, facts.shapes[name]))
    masks = Chosen()
    for name, shape in facts.shapes.items():
        masks.hold(name, tensors[name].long(), torch.Size(shape))
    return masks, facts.inactive
