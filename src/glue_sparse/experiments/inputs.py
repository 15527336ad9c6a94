"""What a run reads must not be what it replaces."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from glue_sparse.arguments.run import Arguments
from glue_sparse.experiments.told import command_line
from glue_sparse.models.names import scratch_of
from glue_sparse.writing.aside import left_by_runs, mend_near
from glue_sparse.writing.files import real
from glue_sparse.writing.words import shortened


def check(arguments: Arguments, folder: Path, patterns: Iterable[str]) -> None:
    """Raise a ValueError that names a flag whose path is the run's own folder, or lies in what the run replaces there.

    Args:
        folder: the run's.
        patterns: names of what is replaced there, as shell patterns.
    """
    replaced = {spelled: left for left in left_by_runs(folder, patterns) for spelled in _spellings(left)}
    own = {*_spellings(folder)}
    for name, given in _read(arguments):
        found = [one for path in (given, *(_links_in(given) if replaced else ())) for one in _spellings(path)]
        if own.intersection(_spellings(given)):
            raise ValueError(f"`{name}` {shortened(given)} is the folder of this run, which would write into what it "
                             "reads: give another `output_dir`")  # fmt: skip
        for path in found:
            if left := next((replaced[one] for one in (path, *path.parents) if one in replaced), None):
                raise ValueError(f"this run would replace {shortened(left)}, which `{name}` {shortened(given)} needs: "
                                 "give another `output_dir`, or copy that elsewhere first")  # fmt: skip


def _read(arguments: Arguments) -> Iterator[tuple[str, Path]]:
    """(flag, path) of all that the run is told to read, and that is there."""
    for flag in command_line().flags.values():
        value = arguments.values.get(flag.name) if flag.reads else None
        for text in value if isinstance(value, list) else [value]:
            path = Path(scratch_of(text)[0]) if text else None
            if path is None:
                continue
            mend_near(path)
            if os.path.lexists(path):
                yield flag.name, path


def _links_in(folder: str | Path) -> Iterator[Path]:
    """Links below a folder, as caches of the hub have them; what they lead to is read too.

    With `scandir`, which needs no call for each of what may be a million images.
    """
    with suppress(OSError), os.scandir(folder) as entries:  # a file, or a folder that nobody here can read
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif entry.is_dir():
                yield from _links_in(entry.path)


def _spellings(path: Path) -> tuple[Path, ...]:
    """A path as it is told, with the links of its folder followed, and where it leads to."""
    told = path.absolute()
    return told, real(told.parent) / told.name, real(told)
