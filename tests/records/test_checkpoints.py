"""Checkpoints by their files: half-written ones count for nothing, damaged ones are said, whole ones are used."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glue_sparse.records import checkpoints
from glue_sparse.records import folder as run_folder

FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "sparse_diff.safetensors", checkpoints.STATE)


def whole(run: Path, step: int, listed: bool = True, files: tuple[str, ...] = FILES) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text(json.dumps({"global_step": step, "of": name}))
    if listed:
        checkpoints.seal(folder)
    return folder


def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: (path.unlink(), make(path))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "changed": lambda path: path.write_text(path.read_text().replace("4", "5", 1) + " "),
    "same size": lambda path: path.write_bytes(path.read_bytes()[::-1]),
    "empty": lambda path: path.write_bytes(b""),
    "folder": replaced(lambda path: path.mkdir()),
    "dangling": replaced(lambda path: path.symlink_to("nowhere")),
    "pipe": replaced(os.mkfifo),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [*FILES, checkpoints.LIST])
def test_a_damaged_checkpoint_is_said_and_an_earlier_one_taken(name, damage, tmp_path: Path, caplog):
    earlier, latest = whole(tmp_path, 4), whole(tmp_path, 8)
    assert checkpoints.latest_whole(tmp_path) == latest
    DAMAGES[damage](latest / name)
    if (name, damage) == (checkpoints.LIST, "missing"):
        assert checkpoints.latest_whole(tmp_path) == latest and "cannot be checked" in caplog.text
        return
    said = "" if name == checkpoints.LIST else name  # a list that was changed well speaks ill of another file
    with pytest.raises(ValueError, match=rf"^{said}.* of checkpoint .*checkpoint-8 is damaged .*start again") as error:
        checkpoints.check(latest)
    assert "\n" not in str(error.value)
    assert checkpoints.latest_whole(tmp_path) == earlier and "checkpoint-8 is damaged" in caplog.text
    shutil.rmtree(earlier)
    with pytest.raises(ValueError, match="checkpoint-8 is damaged"):  # and no fresh start
        checkpoints.latest_whole(tmp_path)


@pytest.mark.parametrize("name", FILES[:3])
@pytest.mark.parametrize("listed", [True, False])
def test_what_a_resumed_run_reads_must_be_there(name, listed, tmp_path: Path):
    folder = whole(tmp_path, 4, listed, tuple(one for one in FILES if one != name))
    with pytest.raises(ValueError, match=f"has no {name}, as one of `save_only_model`"):
        checkpoints.check(folder)
    (folder / name).write_text("another one's")
    if listed:
        with pytest.raises(ValueError, match=f"{name} .* is none of its files"):
            checkpoints.check(folder)
    else:
        checkpoints.check(folder)


def test_each_rank_needs_its_random_state(tmp_path: Path):
    files = tuple(f"rng_state_{rank}.pth" for rank in range(2))
    folder = whole(tmp_path, 4, files=(*FILES[:2], *FILES[3:], *files))
    checkpoints.check(folder)
    assert checkpoints.num_ranks(folder) == 2
    (folder / "rng_state_0.pth").unlink()
    with pytest.raises(ValueError, match="rng_state_0.pth .*is missing"):
        checkpoints.check(folder)


def test_half_written_checkpoints_count_for_nothing(tmp_path: Path):
    assert checkpoints.latest_whole(tmp_path) is None
    for step, state in ((4, None), (8, '{"half'), (12, "[]")):
        folder = whole(tmp_path, step, listed=False)
        (folder / checkpoints.STATE).unlink()
        if state:
            (folder / checkpoints.STATE).write_text(state)
    (tmp_path / "checkpoint-best").mkdir()
    assert checkpoints.complete(tmp_path) == [] and checkpoints.latest_whole(tmp_path) is None


def test_writing_anew_begins_with_nothing(tmp_path: Path):
    folder = whole(tmp_path, 4)
    checkpoints.begin(folder)
    assert not folder.exists()
    checkpoints.begin(folder)


def test_other_processes_go_on_with_another_division_of_steps_and_model_and_nothing_else(tmp_path: Path):
    ranks = tuple(f"rng_state_{rank}.pth" for rank in range(2))
    whole(tmp_path, 4, files=(*FILES[:2], *FILES[3:], *ranks))
    was = {"world_size": 2, "per_device_train_batch_size": 4, "fsdp": "true", "learning_rate": 0.1}
    (tmp_path / run_folder.ARGUMENTS_FILE).write_text(json.dumps(was))

    def resumed(now: dict[str, Any], count: int) -> None:
        training: Any = SimpleNamespace(output_dir=str(tmp_path), process_index=1, world_size=count,
                                        resume_from_checkpoint="last", overwrite=False)  # fmt: skip
        with run_folder.claimed(training, now) as checkpoint:
            assert checkpoint == str(tmp_path / "checkpoint-4")

    resumed({"per_device_train_batch_size": 8, "learning_rate": 0.1}, 1)
    with pytest.raises(ValueError, match="`learning_rate` 0.1, not `learning_rate` 0.2"):
        resumed({"per_device_train_batch_size": 8, "learning_rate": 0.2}, 1)
    with pytest.raises(ValueError, match="`per_device_train_batch_size` 4"):
        resumed({**was, "per_device_train_batch_size": 8}, 2)
