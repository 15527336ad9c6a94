"""Checkpoints of a run: a list of their files with sizes and digests says which are whole and which are damaged."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from glue_sparse.writing import fields
from glue_sparse.writing import files as whole_files

logger = logging.getLogger(__name__)

LIST = "checkpoint.json"
"""The list of a checkpoint's files, written when all of them are there."""
STATE = "trainer_state.json"
FORMAT = "glue_sparse checkpoint 1"
OTHERWISE = "resume from an earlier checkpoint by its path, or start again with `overwrite`"


@dataclass(frozen=True)
class Stored:
    """One file, as it was written."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds: names of files, relative to its folder."""

    format: Literal["glue_sparse checkpoint 1"]
    files: dict[str, Stored]


def begin(folder: Path) -> None:
    """Before a checkpoint is written: what stands in its place counts for nothing from now on, and goes."""
    if os.path.lexists(folder):
        for name in (LIST, STATE):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder)


def seal(folder: Path) -> None:
    """After all files of a checkpoint are written, by whatever process: list them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LIST)
    stored = {path.relative_to(folder).as_posix(): _stored(path) for path in paths}
    text = whole_files.json_text(asdict(Contents(FORMAT, stored)), LIST, indent=1)
    whole_files.write_text(folder / LIST, text + "\n")


def _stored(path: Path) -> Stored:
    with path.open("rb") as file:
        return Stored(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def check(folder: Path) -> None:
    """See that a run can go on from a checkpoint exactly as it would have gone on without a stop.

    Without a list, as older versions wrote them, a checkpoint is taken with a warning where nothing that a resumed run
    reads is missing.

    Raises:
        ValueError: a file is missing, has changed or cannot be read.
    """
    if not is_complete(folder):
        raise ValueError(f"{folder} is not a whole checkpoint: {OTHERWISE}")
    listed = check_unchanged(folder)
    for path in folder.iterdir():
        with _damaged(folder, path.name):
            fields.check_regular(path)
    for name in _needed(folder):
        if not os.path.lexists(folder / name):
            raise ValueError(f"{folder} has no {name}, as one of `save_only_model`, so nothing can go on from it: "
                             f"{OTHERWISE}")  # fmt: skip
        if listed and name not in listed:
            raise ValueError(f"{name} of checkpoint {folder} is none of its files by {LIST}: {OTHERWISE}")


def check_unchanged(folder: Path) -> dict[str, Stored]:
    """See that a checkpoint's files are those of its list; gives the list, empty where an older version wrote none.

    Raises:
        ValueError: a file, or the list, is missing, has changed or cannot be read.
    """
    if not os.path.lexists(folder / LIST):
        _warn(folder)
        return {}
    with _damaged(folder, LIST):
        text = fields.text_of(folder / LIST)
        found = fields.typed(Contents, fields.json_object(text, "it"), "it").files
        if not found:
            raise ValueError("it lists nothing")
    for name, stored in found.items():
        with _damaged(folder, name):
            fields.check_regular(folder / name)
            if _stored(folder / name) != stored:
                raise ValueError("it has changed since it was written")
    return found


@contextmanager
def _damaged(folder: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = {FileNotFoundError: "it is missing", IsADirectoryError: "it is a folder"}.get(type(error), str(error))
        raise ValueError(f"{name} of checkpoint {folder} is damaged ({reason}): {OTHERWISE}") from error


@cache
def _warn(folder: Path) -> None:
    logger.warning("%s has no %s, as older versions wrote it, so its files cannot be checked", folder, LIST)


def num_ranks(folder: Path) -> int:
    """Processes of the run that wrote a checkpoint: each has left its random state."""
    numbers = [int(path.stem.rpartition("_")[2]) for path in folder.glob("rng_state_[0-9]*.pth")]
    return max(numbers, default=0) + 1


def _needed(folder: Path) -> list[str]:
    """What a resumed run reads beside the model; each worker that merges looks for a file of its own."""
    if any(folder.glob("worker*.safetensors")):
        return [STATE]
    count = num_ranks(folder)
    numbers = [f"_{rank}" for rank in range(count)] if count > 1 else [""]
    return [STATE, "optimizer.pt", "scheduler.pt", *(f"rng_state{number}.pth" for number in numbers)]


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint was written to its end, and not whether it is still whole: see `check`.

    Its last file is the list; in older versions it was the Trainer's state, which is whole where it is JSON.
    """
    if os.path.lexists(folder / LIST):
        return True
    try:
        return isinstance(json.loads(fields.text_of(folder / STATE)), dict)
    except (OSError, ValueError, RecursionError):
        return False


def complete(folder: Path) -> list[Path]:
    """Checkpoints of a run that were written to their end, in the order of their steps."""
    return [path for path in _in_order(folder) if is_complete(path)]


def _in_order(folder: Path) -> list[Path]:
    numbers = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")}
    return sorted((path for path in numbers if numbers[path].isdecimal()), key=lambda path: int(numbers[path]))


def latest_whole(folder: Path) -> Path | None:
    """The last checkpoint from which a run can go on; later ones that cannot be used are said.

    Raises:
        ValueError: there are checkpoints, and none can be used.
    """
    refused = None
    for path in reversed(complete(folder)):
        try:
            check(path)
        except ValueError as error:
            refused = error
            logger.warning("%s", error)
            continue
        return path
    if refused:
        raise refused
    return None


def rotate(folder: Path, newest: Path, keep: int | None) -> None:
    """Delete all but the last `keep` complete checkpoints and what was left half-written; `newest` always stays."""
    if not keep:
        return
    kept = {newest, *[path for path in complete(folder) if path != newest][::-1][: keep - 1]}
    for path in _in_order(folder):
        if path not in kept:
            begin(path)
