"""Two real processes of one run: what one is told, finds or suffers alone ends both with a sentence, and at once."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from forked import Forked, ended, start_ranks
from glue_sparse.records import checkpoints
from rare import rarely

SECONDS = 100
"""Far less than gloo would wait, and far more than a loaded machine needs."""


@pytest.fixture
def start(tiny_bert: str, rte: Path, tmp_path: Path) -> Callable[..., list[Forked]]:
    """Two ranks of a run with FISH, of which the second one is told more than the first."""

    def go(second: Sequence[str] = (), *both: str) -> list[Forked]:
        words = [
            "-m", "glue_sparse.cli.train", "--task", "rte", "--model", tiny_bert, "--data_dir", str(rte),
            "--method", "fish", "--density", "0.05", "--per_device_train_batch_size", "4", "--num_train_epochs", "1",
            "--disable_tqdm", "true", "--eval_strategy", "no", "--output_dir", str(tmp_path / "run"), *both,
        ]  # fmt: skip
        return start_ranks([words, [*words, *second]])

    return go


ALONE = {
    "an unknown flag": (["--densty", "0.1"], "unknown argument --densty", 2),
    "another seed": (["--seed", "3"], "--seed: 42 on rank 0, 3 on rank 1", 2),
    "another plan": (["--merge_every", "3"], "--merge_every: None on rank 0, 3 on rank 1", 2),
    "no data": (["--data_dir", "/nowhere"], "/nowhere/RTE/train.tsv does not exist", 1),
    "other sentences": (["--data_dir", "OTHER"], "40 rows on rank 0, 40 rows of other content on rank 1", 1),
    "fewer rows": (["--data_dir", "FEWER"], "training data: 40 rows on rank 0, 30 rows on rank 1", 1),
}  # fmt: skip


@pytest.mark.parametrize("plan", rarely(["alone", "merge"], usual=["alone"]))
@pytest.mark.parametrize("name", rarely(ALONE, usual=["an unknown flag", "other sentences"]))
def test_what_is_wrong_on_one_rank_ends_both(
    start: Callable[..., list[Forked]], rte: Path, tmp_path: Path, name: str, plan: str
):
    words, sentence, status = ALONE[name]
    if words[-1] in ("OTHER", "FEWER"):
        lines = (rte / "RTE" / "train.tsv").read_text().splitlines()
        lines = [line.replace("cat", "bird") for line in lines] if words[-1] == "OTHER" else lines[:31]
        shutil.copytree(rte, tmp_path / "other")
        (tmp_path / "other" / "RTE" / "train.tsv").write_text("\n".join(lines) + "\n")
        words = [*words[:-1], str(tmp_path / "other")]
    both = ("--merge_every", "2") if plan == "merge" and "--merge_every" not in words else ()
    for found, error in ended(start(words, *both), SECONDS):
        assert found == status and "Traceback" not in error, error[-2000:]
        last = error.strip().splitlines()[-1]
        assert last.startswith("error: ") and sentence in last and len(last) < 300


def until_there(folder: Path, pattern: str) -> None:
    end = time.monotonic() + SECONDS
    while not [*folder.glob(pattern)]:
        assert time.monotonic() < end
        time.sleep(0.02)


CASES = [(rank, plan) for rank in (1, 0) for plan in ("alone", "merge")]


def signalled(
    start: Callable[..., list[Forked]], folder: Path, rank: int, plan: str, number: signal.Signals
) -> list[tuple[int | None, str]]:
    """How two ranks end of which one is sent a signal after the first checkpoint."""
    saves = ("--save_strategy", "steps", "--save_steps", "4", "--save_total_limit", "2", "--max_steps", "100000")
    merges = ("--merge_every", "2") if plan == "merge" else ()
    processes = start((), *saves, *merges)
    try:
        until_there(folder / "run", "checkpoint-*/trainer_state.json")
        os.kill(processes[rank].pid, number)
    finally:
        found = ended(processes, SECONDS)
    return found


@pytest.mark.parametrize(("rank", "plan"), rarely(CASES, usual=[(1, "alone")]))
def test_a_killed_rank_ends_the_other_with_the_way_to_go_on(
    start: Callable[..., list[Forked]], tmp_path: Path, rank: int, plan: str
):
    found = signalled(start, tmp_path, rank, plan, signal.SIGKILL)
    status, error = found[1 - rank]
    assert status == 1 and "Traceback" not in error, error[-2000:]
    last = error.strip().splitlines()[-1]
    assert last.startswith("error: another process of this run has ended")
    assert "--resume_from_checkpoint last" in last and len(last) < 300 and "TORCH" not in last


@pytest.mark.parametrize(("rank", "plan"), rarely(CASES, usual=[(1, "alone")]))
def test_a_signal_to_one_rank_ends_both_with_one_checkpoint(
    start: Callable[..., list[Forked]], tmp_path: Path, rank: int, plan: str
):
    found = signalled(start, tmp_path, rank, plan, signal.SIGTERM)
    last = checkpoints.complete(tmp_path / "run")[-1]
    step = last.name.removeprefix("checkpoint-")
    checkpoints.check(last)
    assert checkpoints.num_ranks(last) == 2
    for status, error in found:
        said = error.strip().splitlines()[-1]
        assert status == 128 + signal.SIGTERM, error[-2000:]
        assert said.startswith(f"interrupted: stopped; to go on after step {step}, repeat the command with --resume")
