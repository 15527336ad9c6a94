"""Files and folders are written whole or not at all; nothing of a writer that is gone stays, and all of a live one."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from glue_sparse.writing import files

KILLED = """
import os, signal, sys
from pathlib import Path
from glue_sparse.writing.files import replacing, replacing_folder
path = Path(sys.argv[2])
with (replacing if sys.argv[1] == "file" else replacing_folder)(path) as temporary:
    (temporary if temporary.is_file() else temporary / "part").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(kind: str, path: Path) -> None:
    """Leave what a process leaves that is killed within a write."""
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", KILLED, kind, str(path)], env=environment, check=False)
    assert done.returncode == -9


def test_what_a_killed_writer_left_goes_with_the_next_write_there(tmp_path: Path):
    left = []
    for kind in ("file", "folder"):
        killed(kind, tmp_path / kind)
        left += tmp_path.iterdir()
    assert len(left) == 2 and all(path.name.startswith(".glue_sparse-") for path in left)
    files.write_text(tmp_path / "next", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["next"]


def test_temporary_files_of_the_living_and_of_other_machines_stay(tmp_path: Path):
    host, number = files._host(), os.getppid()
    alive, far, old, other = (tmp_path / name for name in (
        f".glue_sparse-{host}-{number}-0.tmp", ".glue_sparse-far-1-0.tmp", ".glue_sparse-far-2-0.tmp", "x.tmp"
    ))  # fmt: skip
    for path in (alive, far, old, other):
        path.touch()
    os.utime(old, (0, 0))
    with files.replacing(tmp_path / "outer") as temporary:
        files.write_text(tmp_path / "inner", "text")
        assert {alive, far, other, temporary} <= {*tmp_path.iterdir()} and not old.exists()


def full(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_is_whole_or_as_it_was(tmp_path: Path, exists: bool, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "model"
    if exists:
        files.write_text(folder / "kept", "old")
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patch, pytest.raises(OSError) as refused:  # noqa: PT012, PT011
        patch.setattr(Path, "write_text", full)
        with files.replacing_folder(folder) as temporary:
            (temporary / "first").touch()
            files.write_text(temporary / "second", "new")
    assert str(refused.value) == f"cannot write {folder}: No space left on device"
    assert sorted(tmp_path.rglob("*")) == before
    with files.replacing_folder(folder) as temporary:
        files.write_text(temporary / "first", "new")
    assert {path.name for path in folder.iterdir()} == ({"first", "kept"} if exists else {"first"})


def test_several_files_are_replaced_together_or_not_at_all(tmp_path: Path):
    (tmp_path / "c").mkdir()
    files.write_text(tmp_path / "a", "old")
    with pytest.raises(OSError, match="it is a folder"):
        files.write_texts({tmp_path / "a": "new", tmp_path / "b": "new", tmp_path / "c": "new"})
    assert (tmp_path / "a").read_text() == "old" and not (tmp_path / "b").exists()


def as_file(path: Path) -> None:
    path.write_text("a file")


@pytest.mark.parametrize(
    ("prepare", "target", "reason"),
    [
        (as_file, "x/file", "{}/x is no folder to write into"),
        (as_file, "x/y/file", "cannot write {}/x/y/file: Not a directory"),
        (Path.mkdir, "x", "cannot write {}/x: it is a folder"),
        (os.mkfifo, "x", "cannot write {}/x: it is no regular file"),
        (as_file, "n" * 3000, "cannot write ...n+: File name too long"),
    ],
    ids=["in a file", "below a file", "a folder", "a pipe", "too long"],
)
def test_errors_name_what_was_to_be_written(tmp_path: Path, prepare: Callable, target: str, reason: str):
    prepare(tmp_path / "x")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError) as refused:  # noqa: PT011
        files.write_text(tmp_path / target, "text")
    assert re.fullmatch(reason.format(tmp_path), str(refused.value)) and len(str(refused.value)) < 300
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_read_is_not_replaced(tmp_path: Path):
    path, link = files.write_text(tmp_path / "grid.md", "read"), tmp_path / "link.md"
    link.symlink_to(path)
    for name in (path, link):
        told = [1, None, "\0", str(tmp_path), [name]]
        with files.protecting(told), pytest.raises(OSError, match="what is read here"):
            files.write_text(path, "written")
    assert path.read_text() == "read"
    files.write_text(path, "written")


def test_a_link_to_itself_is_no_file_that_is_there(tmp_path: Path):
    (loop := tmp_path / "loop").symlink_to(loop)
    with files.protecting([loop, str(loop)]):
        assert files.write_text(tmp_path / "other", "x").read_text() == "x"
        assert files.write_text(loop, "x").read_text() == "x"  # nothing was behind the link, which goes
    assert files.real(tmp_path / "other") == (tmp_path / "other").resolve()
