"""Tensors with a JSON header in one safetensors file: written whole or not at all, read without pickle."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glue_sparse.writing.files import json_text, replacing

KEY = "glue_sparse"
"""The header's only entry: safetensors writes several in random order, and equal content should be equal bytes."""


def write(path: Path, form: str, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write a file of format `form`; OSError (full disk, no permission) leaves an older file as it was."""
    facts = json_text({"format": form, **header}, path.name)
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={KEY: facts})
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error


def read(path: Path, form: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file of format `form`; ValueError when it is missing, damaged or another kind."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "{}"))
            if header.get("format") != form:
                raise ValueError(f"{path} is not a {form} file")
            return {key: file.get_tensor(key) for key in file.keys()}, header  # noqa: SIM118
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is missing or damaged: {error}") from error


def is_format(path: Path, form: str) -> bool:
    """Whether a file's header says that it is of format `form`."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {}).get(KEY, "{}")).get("format") == form
    except (OSError, SafetensorError, json.JSONDecodeError):
        return False


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
