"""What a diff's file says of itself, and its digest, read without loading torch: grids ask it of every run."""

import hashlib
import json
import struct
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from glue_sparse.core.options import Inactive

FILE_NAME = "sparse_diff.safetensors"
FORMAT = "glue_sparse diff 1"
PARTS = ("indices", "values", "whole")
_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""Types as safetensors write them -> as torch does."""


@dataclass(frozen=True)
class DiffInfo:
    """Facts stored in the file's header as JSON."""

    base_model: str = "its base model"
    """Hub id, folder or alias of the model the diff belongs to."""
    model_class: str = ""
    task: str = ""
    method: str = ""
    density: float | None = None
    """Active fraction of the whole model, as asked for."""
    labels: tuple[str, ...] = ()
    dtype: str = "float32"
    inactive: Inactive = "frozen"
    num_labels: int | None = None
    vocab_size: int | None = None
    """Of a model whose base does not say it, because it is random and its tokenizer was trained or given."""
    base_digest: str = ""
    """Of all the base's parameters but the head; empty where unknown."""
    pruned_from: str = ""
    """Digest of the diff that this one was pruned from."""

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "DiffInfo":
        """From a header, whose other entries are those of later versions."""
        known = {f.name: stored[f.name] for f in fields(cls) if f.name in stored}
        return replace(cls(**known), labels=tuple(known.get("labels", ())))


def identity(path: Path) -> tuple[str, DiffInfo]:
    """(digest, facts) of a diff's file, read once for as long as the file stays as it is.

    Raises:
        ValueError: not a diff of this library, or damaged.
    """
    return _identity(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _identity(path: Path, changed: int) -> tuple[str, DiffInfo]:
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            tensors = json.loads(file.read(size))
            facts = json.loads(tensors.pop("__metadata__", {}).get("glue_sparse", "{}"))
            if facts.get("format") != FORMAT:
                raise ValueError(f"{path} is not a {FORMAT} file")
            digest = _digest(tensors, lambda begin, end: _bytes(file, 8 + size + begin, end - begin))
            return digest, DiffInfo.of(facts["info"])
    except (struct.error, json.JSONDecodeError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is missing or damaged: {error}") from error


def _bytes(file: Any, start: int, count: int) -> bytes:
    file.seek(start)
    found = file.read(count)
    if len(found) != count:
        raise KeyError("the file ends before its tensors do")
    return found


def _digest(tensors: dict[str, Any], read: Any) -> str:
    """As `diff_file.digest` of the same tensors."""
    sha = hashlib.sha256()
    for key in sorted(tensors, key=lambda key: (PARTS.index(key.partition("/")[0]), key)):
        one, (part, _, name) = tensors[key], key.partition("/")
        tensor = hashlib.sha256(f"torch.{_TYPES[one['dtype']]}{tuple(one['shape'])}".encode())
        tensor.update(read(*one["data_offsets"]))
        sha.update(f"{part} {name} {tensor.hexdigest()}\n".encode())
    return sha.hexdigest()
