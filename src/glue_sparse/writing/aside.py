"""The run that a new one replaces: moved aside first, dropped once the new one trains, and put back if it never does.

All of it stands in the run's folder, and each change from one state to the next is one rename, so that whoever comes
after a kill knows what is whose.
"""

import os
import shutil
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from glue_sparse.writing.fields import json_value, text_of, typed
from glue_sparse.writing.files import json_text, write_text

LOCK = ".lock"
"""Held in a run's folder while a process works there."""
OLD = ".old_run"
"""All that the earlier run left; beside it only the new run's files have these names."""
_MOVING = ".old_run.moving"
"""Some of it; what is not here is still, or again, in its place."""
_GONE = ".old_run.gone"
"""The same, and nobody wants it any more."""
_PATTERNS = ".patterns.json"


def left_by_runs(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """What stands in a folder under the names that runs leave, which shell patterns say."""
    return [path for pattern in patterns for path in folder.glob(pattern)]


def move(folder: Path, patterns: Collection[str]) -> None:
    """Move aside what an earlier run left; for the process that holds the folder, after `put_back`."""
    moving = folder / _MOVING
    moving.mkdir()
    write_text(moving / _PATTERNS, json_text(sorted(patterns), "the names that runs leave"))
    for path in left_by_runs(folder, patterns):
        path.rename(moving / path.name)
    moving.rename(folder / OLD)


def put_back(folder: Path) -> None:
    """Put what stands aside, if anything does, in its place again, which a new run loses what it has written there for.

    For the process that holds the folder.
    """
    old, moving = folder / OLD, folder / _MOVING
    if (folder / _GONE).is_dir():
        shutil.rmtree(folder / _GONE)
    if old.is_dir():
        path = old / _PATTERNS
        patterns = typed(list[str], json_value(text_of(path), path), path)
        if any("/" in pattern or os.sep in pattern or pattern.startswith(".") for pattern in patterns):
            raise ValueError(f"{path} names more than a run leaves in its folder: delete {old}, or put it in its place")
        for left in left_by_runs(folder, patterns):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        old.rename(moving)
    if moving.is_dir():
        (moving / _PATTERNS).unlink(missing_ok=True)
        for path in moving.iterdir():
            path.rename(folder / path.name)
        moving.rmdir()


def holds_a_run(folder: Path) -> bool:
    """Whether an earlier run stands aside, and comes back if the new one never trains."""
    return (folder / OLD).is_dir() and any(path.name != _PATTERNS for path in (folder / OLD).iterdir())


def drop(folder: Path) -> None:
    """Delete what stands aside: the new run has come so far that it takes its place."""
    if (folder / OLD).is_dir():
        (folder / OLD).rename(folder / _GONE)
        shutil.rmtree(folder / _GONE, ignore_errors=True)  # the next run tries again, and says why it cannot


def mend(folder: Path) -> None:
    """Put back what a killed run left aside, unless a process works in the folder."""
    if any((folder / name).is_dir() for name in (OLD, _MOVING, _GONE)):
        with suppress(Timeout, OSError), FileLock(folder / LOCK, timeout=0):
            put_back(folder)


def near(path: Path) -> list[Path]:
    """A path and the folders that it may lie in as a part of a run, those that exist; a run's files lie no deeper."""
    try:
        above = Path(os.path.realpath(path)).parents[:3]
    except ValueError:  # no path at all
        return []
    return [one for one in (path, *above) if os.path.lexists(one)]


def mend_near(path: Path) -> None:
    """Before a path is read: see that it is there if it is a run, or part of one, that a killed run left aside."""
    for folder in near(path):
        mend(folder)


def runs_below(folder: Path, name: str) -> list[Path]:
    """Files of a name in all runs below a folder, in order; not those of runs that are being replaced."""
    for path in {*folder.rglob(OLD), *folder.rglob(f"{OLD}.*")}:
        mend(path.parent)
    places = [Path(place) for place, *inner in os.walk(folder) if name in (*inner[0], *inner[1])]
    return sorted(place / name for place in places if not place.name.startswith(OLD))  # `rglob` skips broken links
