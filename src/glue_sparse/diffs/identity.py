"""What a diff's file says of itself, and its digest, read without loading torch: grids ask it of every run."""

import hashlib
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from glue_sparse.core.options import Inactive, Pooling
from glue_sparse.writing.fields import typed
from glue_sparse.writing.seals import TYPES, Content, Facts, read, reading

FILE_NAME = "sparse_diff.safetensors"
FORMAT = "glue_sparse diff"
PARTS = ("indices", "values", "whole")


@dataclass(frozen=True)
class DiffInfo:
    """Facts stored in the file's header as JSON."""

    base_model: str = "its base model"
    """Hub id, folder or alias of the model the diff belongs to."""
    model_class: str = ""
    """Name of the class that loads the base with this task's head."""
    task: str = ""
    """Name of the task; empty for one of your own."""
    method: str = ""
    """Name of the method that chose the entries."""
    density: float | None = None
    """Active fraction of the whole model, as asked for."""
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the outputs."""
    dtype: str = "float32"
    """Type of the model's numbers, as in `torch.float32`."""
    inactive: Inactive = "frozen"
    """What the other entries hold: the base's value, or `zero`."""
    num_labels: int | None = None
    """Outputs of the head; none for a model that has no such number."""
    vocab_size: int | None = None
    """Of a model whose base does not say it, because it is random and its tokenizer was trained or given."""
    pooling: Pooling | None = None
    """What the head of a text classifier reads, see `options.Pooling`; none where the file is of before it was said,
    when all had what transformers gives their class."""
    base_digest: str = ""
    """Of all the base's parameters but the head; empty where unknown."""
    pruned_from: str = ""
    """Digest of the diff that this one was pruned from."""


def base_named_by(model: Any) -> str:
    """Where a model was loaded from, if it says so."""
    return getattr(getattr(model, "config", None), "_name_or_path", "") or DiffInfo.base_model


def facts_of(model: Any) -> dict[str, Any]:
    """What a model says of itself, by the names of `DiffInfo`."""
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    return {"model_class": type(model).__name__, "num_labels": num_labels, "pooling": pooling_of(model)}


def seen_in(model: Any) -> dict[str, Any]:
    """What every diff of a model says of it, whoever made it, by the names of `DiffInfo`."""
    return {"dtype": str(next(model.parameters()).dtype).removeprefix("torch."), "pooling": pooling_of(model)}


def pooling_of(model: Any) -> Pooling:
    """What the head of a text classifier reads; of any other model, what transformers gives its class."""
    return getattr(getattr(model, "config", None), "classifier_pooling", "pooler")


@dataclass(frozen=True)
class Link:
    """Where a delta stands among those of its training, stored beside its facts."""

    step: int
    follows: int | None
    previous: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class DiffFacts(Facts):
    """What the header says in both layouts."""

    info: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    may_lack: ClassVar[tuple[str, ...]] = ()
    """Facts that were not yet told when the first files of this layout were written."""

    def parted(self) -> tuple[DiffInfo, Link | None]:
        """`info` as what it must be: the facts, and of a delta its link.

        Raises:
            ValueError: one of them has another type, is missing or not known.
        """
        names = {one.name for one in fields(Link)}
        link = {key: value for key, value in self.info.items() if key in names}
        info = {key: value for key, value in self.info.items() if key not in names}
        sealed = [one.name for one in fields(DiffInfo) if one.name not in self.may_lack]
        needed = ["inactive"] if self.tensors is None else sealed
        if lacking := [key for key in needed if key not in info]:
            raise ValueError(f"its header lacks {', '.join(lacking)}")
        return typed(DiffInfo, info, "its header"), typed(Link, link, "its header") if link else None


@dataclass(frozen=True, kw_only=True)
class PlainFacts(DiffFacts):
    """What the header of layout 1 says: three tensors for each masked one."""

    digests: dict[str, str]
    may_lack: ClassVar[tuple[str, ...]] = ("pooling",)


@dataclass(frozen=True, kw_only=True)
class CompactFacts(DiffFacts):
    """What the header of layout 2 says, see `compact`."""

    layout: Literal[2]
    coded: dict[str, dict[str, tuple[int, ...]]]
    """Type of values -> parameter name -> (entries, low bits, bytes of the gaps)."""
    holds: Literal["values", "differences"]
    """What `values/TYPE` are: the new values, or how much they differ from the base."""
    digest: str
    """Of the diff, as `SparseDiff.digest`."""


def facts_in(stored: dict[str, Any]) -> PlainFacts | CompactFacts:
    """A header as what it must be.

    Raises:
        ValueError: it is neither of the two.
    """
    kind = CompactFacts if "layout" in stored else PlainFacts
    return typed(kind, stored, "its header")


def identity(path: Path) -> tuple[str, DiffInfo]:
    """(digest, facts) of a diff's file, read once for as long as the file stays as it is.

    Raises:
        ValueError: not a diff of this library, or damaged.
    """
    with reading(path):
        changed = path.stat().st_mtime_ns
    return _identity(path, changed)


@lru_cache(maxsize=256)
def _identity(path: Path, changed: int) -> tuple[str, DiffInfo]:
    content = read(path, FORMAT)
    with reading(path):
        facts = facts_in(content.facts)
        info, _ = facts.parted()
        if isinstance(facts, CompactFacts):
            return facts.digest, info
        if unknown := [key for key in content.tensors if key.partition("/")[0] not in PARTS]:
            raise ValueError(f"{unknown[0]} is no part of a diff")
    return _digest(content), info


def _digest(content: Content) -> str:
    """As `diff_file.digest` of the same tensors."""
    sha = hashlib.sha256()
    for key in sorted(content.tensors, key=lambda key: (PARTS.index(key.partition("/")[0]), key)):
        one, (part, _, name) = content.tensors[key], key.partition("/")
        tensor = hashlib.sha256(f"torch.{TYPES[one.dtype][0]}{one.shape}".encode())
        begin, end = one.data_offsets
        tensor.update(content.data[begin:end])
        sha.update(f"{part} {name} {tensor.hexdigest()}\n".encode())
    return sha.hexdigest()
