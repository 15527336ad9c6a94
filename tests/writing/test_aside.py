"""An earlier run that stands aside comes back whole, wherever the new one or its kill stops."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from glue_sparse.writing import aside

PATTERNS = {"results.json", "model", "checkpoint-*"}
EARLIER = {"results.json": "old", "model/weights": "old", "checkpoint-3/state": "old", "notes.txt": "mine"}


def filled(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    return {name: text for name, text in found.items() if name != aside.LOCK}


class Killed(BaseException):
    """As SIGKILL, nothing of ours goes on after it."""


def killed_at(call: int, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> bool:
    """Whether an action was stopped at a change of a name, the `call`-th one."""
    left = [call]

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def change(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*args, **kwargs)

        return change

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "rename"), (Path, "unlink"), (Path, "rmdir"), (shutil, "rmtree")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        try:
            action()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("call", range(7))
def test_a_kill_while_it_is_moved_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int):
    filled(tmp_path, EARLIER)
    killed_at(call, monkeypatch, lambda: aside.move(tmp_path, PATTERNS))
    aside.mend(tmp_path)
    assert content(tmp_path) == EARLIER


@pytest.mark.parametrize("call", range(8))
def test_a_kill_while_it_is_put_back_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int):
    filled(tmp_path, EARLIER)
    aside.move(tmp_path, PATTERNS)
    assert content(tmp_path).keys() & EARLIER.keys() == {"notes.txt"}
    filled(tmp_path, {"checkpoint-1/state": "new", "model/other": "new", "log": "new"})
    killed_at(call, monkeypatch, lambda: aside.put_back(tmp_path))
    aside.mend(tmp_path)
    assert content(tmp_path) == {**EARLIER, "log": "new"}


def test_a_kill_after_it_was_dropped_does_not_bring_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = tmp_path / "run"
    filled(run, EARLIER)
    aside.move(run, PATTERNS)
    filled(run, {"results.json": "new"})
    assert killed_at(1, monkeypatch, lambda: aside.drop(run))
    assert aside.runs_below(tmp_path, "results.json") == [run / "results.json"]
    assert content(run) == {"results.json": "new", "notes.txt": "mine"}


def test_a_reader_puts_back_what_a_killed_run_left_but_not_what_a_live_one_holds(tmp_path: Path):
    filled(tmp_path / "run", EARLIER)
    aside.move(tmp_path / "run", PATTERNS)
    with FileLock(tmp_path / "run" / aside.LOCK):
        assert aside.runs_below(tmp_path, "results.json") == []
    assert aside.runs_below(tmp_path, "results.json") == [tmp_path / "run" / "results.json"]
    assert content(tmp_path / "run") == EARLIER


@pytest.mark.parametrize("pattern", ["../*", "a/../../*", "..", ".*"])
def test_nothing_outside_of_a_run_is_deleted_for_what_a_folder_says(tmp_path: Path, pattern: str):
    run = tmp_path / "runs" / "run"
    filled(tmp_path, {"mine": "kept"})
    filled(run, {".old_run/results.json": "old", ".old_run/.patterns.json": f'["{pattern}"]'})
    before = content(tmp_path)
    with pytest.raises(ValueError, match="names more than a run leaves"):
        aside.mend(run)
    assert {name: text for name, text in content(tmp_path).items() if not name.endswith(aside.LOCK)} == before


def test_what_can_be_no_path_has_nothing_to_mend(tmp_path: Path):
    for name in ("a\0b", "x" * 5000, ""):
        aside.mend_near(tmp_path / name)
