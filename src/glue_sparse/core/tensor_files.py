"""Tensors with a JSON header in one safetensors file: written whole or not at all, sealed, read without pickle."""

from errno import EIO
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glue_sparse.writing import seals
from glue_sparse.writing.files import json_text, replacing


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
    """Tensors and facts of a file of a kind; ValueError when it is missing, damaged or another kind."""
    header = seals.read_header(path, kind)
    with seals.reading(path):
        try:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in header.tensors}, header.facts
        except (SafetensorError, RuntimeError, OverflowError) as error:
            raise ValueError(str(error)) from error


def locate(source: str | Path, name: str, revision: str | None = None) -> Path:
    """The file itself, the file `name` in a folder, or in a hub repository `owner/repository`.

    Raises:
        ValueError: there is none, or the hub is out of reach.
    """
    path = Path(source)
    if path.is_dir() and not (path / name).is_file():
        raise ValueError(f"{path} holds no {name}")
    if path.exists():
        return path / name if path.is_dir() else path
    if path.is_absolute() or str(source).count("/") != 1:
        raise ValueError(f"{source} does not exist")
    try:
        return Path(hf_hub_download(str(source), name, revision=revision))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(f"{source} is neither a file, a folder nor a reachable hub repository with {name}") from error
