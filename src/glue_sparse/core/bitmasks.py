"""Which weights a pruned model of compressed-tensors keeps, from its bitmask files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from glue_sparse.core.masks import Masks

_MASK, _SHAPE = ".bitmask", ".shape"


def read(source: str | Path) -> Masks:
    """Masks of the weights that are not zero, in a model folder or file of formats `sparse-bitmask` and
    `sparse-24-bitmask`.

    Of each pruned layer NAME such a file holds NAME.bitmask, uint8 [rows, ceil(columns / 8)], a bit for each weight,
    the lowest first, and NAME.shape; the weight is called NAME.weight.

    Raises:
        ValueError: there are none, or a file is damaged.
    """
    source = Path(source)
    files = sorted(source.glob("*.safetensors")) if source.is_dir() else [source]
    found = {name: mask for path in files for name, mask in _read(path)}
    if not found:
        raise ValueError(f"{source} holds no NAME{_MASK} of compressed-tensors: give a model folder in that format")
    return found


def _read(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            names = {key.removesuffix(_MASK) for key in file.keys() if key.endswith(_MASK)}  # noqa: SIM118
            for name in sorted(names):
                yield f"{name}.weight", _mask(file.get_tensor(name + _MASK), file.get_tensor(name + _SHAPE).tolist())
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as bitmasks of compressed-tensors: {error}") from error


def _mask(packed: Tensor, shape: list[int]) -> Tensor:
    bits = np.unpackbits(packed.view(torch.uint8).numpy(), axis=-1, count=shape[-1], bitorder="little")
    return torch.from_numpy(bits.astype(bool)).reshape(shape)
