"""Tensors with a JSON header in one safetensors file: written whole or not at all, sealed, read without pickle."""

import os
from errno import EIO
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from glue_sparse.writing import aside, seals
from glue_sparse.writing.files import check_there, json_text, replacing


def write(path: Path, kind: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write a sealed file of a kind; OSError (full disk, no permission) leaves an older file as it was."""
    header = json_text(seals.to_seal(kind, len(tensors), facts), path.name)
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={seals.KEY: header})
        except SafetensorError as error:
            raise OSError(EIO, str(error)) from error
        seals.seal(temporary)


def read(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a file of a kind; ValueError when it is missing, damaged or another kind.

    The tensors lie in the bytes that were read, without a copy.
    """
    content = seals.read(path, kind)
    with seals.reading(path):
        try:
            return {name: _tensor(content.data, one) for name, one in content.tensors.items()}, content.facts
        except (RuntimeError, OverflowError) as error:
            raise ValueError(str(error)) from error


def _tensor(data: memoryview, one: seals.Layout) -> Tensor:
    (begin, end), dtype = one.data_offsets, getattr(torch, seals.TYPES[one.dtype][0])
    if begin == end:
        return torch.empty(one.shape, dtype=dtype)
    flat = torch.frombuffer(data, dtype=dtype, offset=begin, count=(end - begin) // dtype.itemsize)
    return flat if len(one.shape) == 1 else flat.view(one.shape)


def locate(source: str | Path, name: str, revision: str | None = None) -> Path:
    """The file itself, the file `name` in a folder, or in a hub repository `owner/repository`.

    Raises:
        ValueError: there is none, or the hub is out of reach.
    """
    path = Path(source)
    aside.mend_near(path)
    if path.is_dir() and not os.path.lexists(path / name):  # a pipe or a link to nothing is there, and refused later
        raise ValueError(f"{path} holds no {name}")
    if path.exists():
        return path / name if path.is_dir() else path
    check_there(source)
    try:
        return Path(hf_hub_download(str(source), name, revision=revision))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(f"{source} is neither a file, a folder nor a reachable hub repository with {name}") from error
