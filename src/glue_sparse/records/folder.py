"""A run's folder: one process at a time works there, and nothing in it is lost by accident."""

import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from glue_sparse.records import checkpoints, results
from glue_sparse.writing import aside
from glue_sparse.writing import files as whole_files
from glue_sparse.writing.fields import json_object, text_of
from glue_sparse.writing.words import shortened

if TYPE_CHECKING:
    from glue_sparse.arguments.training import RunArguments

ARGUMENTS_FILE = "arguments.json"
_DIVISION = (
    results.PROCESSES, "per_device_train_batch_size", "gradient_accumulation_steps", "fsdp", "fsdp_config",
    "choose_on_shards",
)  # fmt: skip
"""Settings of how processes divide a step and a model; of them only the examples of a step decide numbers."""
COMMAND_FILE = "command.txt"
DIVERGED = "diverged.txt"


@contextmanager
def claimed(training: "RunArguments", given: dict[str, Any]) -> Iterator[str | None]:
    """Hold the output folder for this run; gives the checkpoint to resume from, if any. The first rank comes first.

    An earlier run that stands aside (`aside.move`) when the block ends, or that a killed run has left so, is put back.

    Args:
        given: the run's arguments; a resumed run must have the settings of the one it continues.
    Raises:
        ValueError: the folder is in use, cannot be written, or holds another run.
    """
    folder = Path(training.output_dir or ".")
    lock = FileLock(folder / aside.LOCK, timeout=2)  # a grid that looks whether it is held holds it for a moment
    try:
        if training.process_index == 0:
            _lock(folder, lock)
            aside.put_back(folder)
        checkpoint = _checkpoint(folder, training)
        if checkpoint:
            _check_same_settings(Path(checkpoint), given, training.world_size)
        if training.process_index == 0:
            _check_free(folder, training, checkpoint)
        yield checkpoint
    finally:
        if lock.is_locked:
            aside.put_back(folder)
        lock.release()


@contextmanager
def held(target: Path | None) -> Iterator[None]:
    """Hold the run's folder that a file or a folder to be written lies in, or is, where there is such a run.

    Raises:
        ValueError: another process works there.
    """
    with ExitStack() as stack:
        near = aside.near(target) if target else []
        if folder := next((path for path in near if (path / aside.LOCK).is_file()), None):
            try:
                stack.enter_context(FileLock(folder / aside.LOCK, timeout=2))
            except Timeout as error:
                raise ValueError(f"a run is at work in {shortened(folder)}: wait for it, or write elsewhere") from error
        yield


def check_places(folders: Iterable[Path]) -> None:
    """Raise a ValueError for a folder that could not be made, or not be written to, before work for it begins."""
    for near in {next(path for path in (folder, *folder.parents) if path.exists()) for folder in folders}:
        if not near.is_dir() or not os.access(near, os.W_OK | os.X_OK):
            reason = "may not be written to" if near.is_dir() else "is no folder"
            raise ValueError(f"cannot write to `output_dir`: {shortened(near)} {reason}")


def _lock(folder: Path, lock: FileLock) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        where = shortened(folder)
        raise ValueError(f"another process works in {where}: wait for it, or give another `output_dir`") from error
    except OSError as error:
        reason = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise ValueError(f"cannot write to `output_dir` {shortened(folder)}: {reason}") from error


def patterns(files: Iterable[str]) -> set[str]:
    """Shell patterns of all that a run leaves in its folder; nothing else there is a run's to replace.

    Args:
        files: those of the methods.
    """
    own = {results.FILE_NAME, ARGUMENTS_FILE, COMMAND_FILE, DIVERGED, "checkpoint-*", "predictions", "model", "deltas"}
    return own.union(files)


def note_run(folder: Path, given: dict[str, Any]) -> None:
    """Leave what a run is told, and the command line that began it or goes on with it."""
    text = whole_files.json_text(results.settings(given), "the arguments", indent=2)
    whole_files.write_text(folder / ARGUMENTS_FILE, text + "\n")
    whole_files.write_text(folder / COMMAND_FILE, shlex.join(sys.argv) + "\n")


def _check_free(folder: Path, training: "RunArguments", checkpoint: str | None) -> None:
    if training.overwrite and not training.resume_from_checkpoint:
        return
    if (folder / results.FILE_NAME).exists():
        if training.resume_from_checkpoint == "auto":  # it has been finished since, by another process
            return
        raise ValueError(f"{folder} holds a finished run: add `overwrite` to replace it, or give another `output_dir`")
    if training.resume_from_checkpoint == "auto":  # half-written checkpoints count for nothing
        return
    if checkpoint is None and any(folder.glob("checkpoint-*")):
        raise ValueError(
            f"{folder} holds an unfinished run: continue it with `resume_from_checkpoint` last, or add `overwrite`"
        )


def _checkpoint(folder: Path, training: "RunArguments") -> str | None:
    wanted = training.resume_from_checkpoint
    if not wanted:
        return None
    if wanted == "auto":
        found = checkpoints.latest_whole(folder)
        return str(found) if found else None
    if wanted not in ("last", "true", "True"):
        if not checkpoints.is_complete(Path(wanted)):
            raise ValueError(f"`resume_from_checkpoint` {wanted} is not a checkpoint; say `last` for the latest one")
    else:
        complete = checkpoints.complete(folder)
        if not complete:
            raise ValueError(f"{folder} holds no complete checkpoint to resume from: give `overwrite` instead")
        wanted = str(complete[-1])
    checkpoints.check(Path(wanted))
    return wanted


def mark_diverged(folder: Path, sentence: str) -> None:
    """Leave a note in the place of a result: with these settings training diverges, and would do so again."""
    whole_files.write_text(folder / DIVERGED, sentence + "\n")


def diverged(folder: Path) -> dict[str, Any] | None:
    """The settings of the run that has left that note, empty where they are not stored; none without a note."""
    if not (folder / DIVERGED).exists():
        return None
    path = folder / ARGUMENTS_FILE
    return json_object(text_of(path), path) if path.exists() else {}


def _check_same_settings(checkpoint: Path, given: dict[str, Any], num_ranks: int) -> None:
    """Other processes may divide a step otherwise; that it has as many examples is seen when the checkpoint is read."""
    path = checkpoint.parent / ARGUMENTS_FILE
    if not path.exists():
        return
    was, divided = json_object(text_of(path), path), _DIVISION if num_ranks != checkpoints.num_ranks(checkpoint) else ()
    kept = [{name: value for name, value in one.items() if name not in divided} for one in (was, given)]
    results.check_same_settings(checkpoint.parent, *kept)
