"""Files and folders written whole or not at all, through temporary ones that whoever comes after a kill removes."""

import json
import math
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from glue_sparse.writing.words import shortened

_NUMBERS = count()
_OURS: set[str] = set()
"""Names of the temporary files and folders that this process writes now."""
_NAME = re.compile(r"\.glue_sparse-(?P<host>.*)-(?P<process>\d+)-\d+\.tmp")
_KEPT: list[frozenset[Path]] = []
"""Files that are read now, and must not be replaced."""
_OLD = 24 * 3600
"""Seconds after which a file of another machine is one that nobody writes."""


def cache_folder() -> Path:
    """Where what can be made anew is kept between runs, `$XDG_CACHE_HOME/glue_sparse`; it need not be there.

    Raises:
        RuntimeError: the user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glue_sparse"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and goes when it does not.

    Raises:
        OSError: it cannot be written; the message names `path`.
    """
    with _said_of(path):
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "no regular file"
            raise OSError(f"cannot write {shortened(path)}: it is {what}")
        if any(real(path) in kept for kept in _KEPT):
            raise OSError(f"cannot write {shortened(path)}: it is what is read here, so choose another name or folder")
        with _temporary(_made(path.parent)) as temporary:
            temporary.touch(exist_ok=False)
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)


@contextmanager
def protecting(values: Iterable[object]) -> Iterator[None]:
    """Within the block no file is replaced that one of the values, or of the lists among them, is the path of."""
    _KEPT.append(frozenset(real(path) for path in paths(values) if _is_file(path)))
    try:
        yield
    finally:
        _KEPT.pop()


def real(path: str | Path) -> Path:
    """Where a path leads to; unlike `resolve`, also for links that lead to themselves, which nothing is behind."""
    return Path(os.path.realpath(path))


def paths(values: Iterable[object]) -> list[Path]:
    """What can be a path among values, and among the lists of values."""
    told = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return [Path(one) for one in told if isinstance(one, str | Path)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no path at all
        return False


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder whose content takes its place in `folder` when the block ends well, and goes when it does not.

    Where there is no such folder yet, it is there whole or not at all. Where there is one, which may be a link or the
    root of a disk, files of other names stay in it.

    Raises:
        OSError: it cannot be written; the message names `folder`.
    """
    with _said_of(folder, parts=True):
        is_new = not os.path.lexists(folder)
        with _temporary(_made(folder.parent if is_new else folder)) as temporary:
            temporary.mkdir()
            yield temporary
            if is_new and not folder.exists():
                temporary.rename(folder)
                return
            for path in temporary.iterdir():
                if (taken := folder / path.name).is_dir() and not taken.is_symlink():
                    shutil.rmtree(taken)
                path.replace(taken)


def sweep(folder: Path) -> None:
    """Remove temporary files and folders whose writers are gone, for example since they were killed."""
    for path in folder.glob(".glue_sparse-*.tmp"):
        with suppress(OSError):  # another process may sweep too
            if _is_left(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_left(path: Path) -> bool:
    found = _NAME.fullmatch(path.name)
    if found is None or path.name in _OURS:
        return False
    if found["host"] == _host():
        process = int(found["process"])
        if process == os.getpid() or not _is_alive(process):
            return True
    return time.time() - path.stat().st_mtime > _OLD


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@lru_cache(maxsize=1)
def _host() -> str:
    """Where the number of a process tells which it is: on this machine, or in this container of it."""
    spaces = Path("/proc/self/ns/pid")
    numbers = spaces.readlink() if spaces.is_symlink() else ""
    return re.sub(r"[^\w.-]", "", f"{socket.gethostname()[:60]}.{numbers}")


def _made(folder: Path) -> Path:
    """The folder, which is made where it is missing, without what others have left in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OSError(f"{shortened(folder)} is no folder to write into") from None
    sweep(folder)
    return folder


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A path for a temporary file or folder, of which nothing is left afterwards."""
    path = folder / f".glue_sparse-{_host()}-{os.getpid()}-{next(_NUMBERS)}.tmp"
    _OURS.add(path.name)
    try:
        yield path
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        _OURS.discard(path.name)


@contextmanager
def _said_of(path: Path, parts: bool = False) -> Iterator[None]:
    """Say what was to be written where the system names a temporary file, or none.

    Args:
        parts: also where something of ours names a part of it, which lies in a temporary folder.
    """
    try:
        yield
    except OSError as error:
        known = error.__cause__ if parts and not error.errno else error
        if not isinstance(known, OSError) or not known.errno:  # a sentence of another kind
            raise
        raise OSError(f"cannot write {shortened(path)}: {known.strerror}") from known


def write_text(path: Path, text: str) -> Path:
    """Write a file whole or not at all."""
    return write_texts({path: text})[0]


def write_texts(texts: Mapping[Path, str]) -> list[Path]:
    """Write several files, of which none is replaced before all are written; gives their paths.

    Half a character, as titles of others may hold, is written as an escape.
    """
    with ExitStack() as stack:
        for path, text in texts.items():
            stack.enter_context(replacing(path)).write_text(text, "utf-8", "backslashreplace")
    return [*texts]


def json_text(value: Any, what: str, **options: Any) -> str:
    """A value as JSON, which has finite numbers alone.

    Args:
        what: the value in words, for the message.
        options: of `json.dumps`.
    Raises:
        ValueError: a number is NaN or infinite; the message says where it is.
    """
    if found := next(_not_finite(value, ""), None):
        where, number = found
        raise ValueError(f"`{where}` of {what} is {number}, which is no number to write down")
    return json.dumps(value, allow_nan=False, **options)


def _not_finite(value: Any, where: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_finite(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _not_finite(inner, f"{where}[{index}]")


def without_infinite(value: Any) -> Any:
    """The same dictionaries and lists with None for each number that is NaN or infinite."""
    if isinstance(value, dict):
        return {key: without_infinite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_there(source: str | Path) -> None:
    """Raise a ValueError for what is neither a file nor a folder, and cannot be a hub repository `owner/repository`."""
    if not Path(source).exists() and (Path(source).is_absolute() or str(source).count("/") != 1):
        raise ValueError(f"{source} does not exist")


def check_empty(folder: Path) -> None:
    """Raise a ValueError for a place to write to that holds something; what a killed writer has left is removed."""
    if folder.is_dir():
        sweep(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{shortened(folder)} is {'not empty' if folder.is_dir() else 'no folder'}: give another")
