"""The file of masks: flat positions of the active entries, and what the others hold."""

from pathlib import Path

import torch

from glue_sparse.core import tensor_files
from glue_sparse.core.masks import Masks
from glue_sparse.core.options import Inactive

FORMAT = "glue_sparse masks 1"

FILE_NAME = "masks.safetensors"
"""In the folder of a pruned model."""


def save(masks: Masks, path: str | Path, inactive: Inactive = "frozen") -> None:
    """Write masks as flat int64 indices of the active entries (safetensors), and what the other entries hold."""
    tensors = {name: mask.cpu().flatten().nonzero().squeeze(1) for name, mask in masks.items()}
    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    tensor_files.write(Path(path), FORMAT, tensors, {"shapes": shapes, "inactive": inactive})


def load(path: str | Path) -> tuple[Masks, Inactive]:
    """Read what `save` wrote: the masks, and what inactive entries hold.

    Args:
        path: the file, or the folder of a pruned model, in which it is called `FILE_NAME`.
    Raises:
        ValueError: missing, damaged or foreign file.
    """
    path = Path(path)
    tensors, header = tensor_files.read(path / FILE_NAME if path.is_dir() else path, FORMAT)
    masks = {}
    try:
        for name, shape in header["shapes"].items():
            masks[name] = torch.zeros(shape, dtype=torch.bool)
            masks[name].view(-1)[tensors[name]] = True
    except (KeyError, IndexError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return masks, "zero" if header.get("inactive") == "zero" else "frozen"
