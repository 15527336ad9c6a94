"""Real grids of real runs on a tiny BERT: failures, kills and restarts."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from forked import SUBPROCESS, Forked
from glue_sparse import SparseDiff
from glue_sparse.experiments import devices, grids, runner, slurm
from glue_sparse.records import results
from glue_sparse.writing import aside
from small_grids import finished

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tiny_bert: str, rte: Path, tmp_path: Path) -> Path:
    """Two short runs."""
    grid: dict[str, Any] = {
        "base": {"model": tiny_bert, "data_dir": str(rte), "num_train_epochs": 2, "disable_tqdm": True},
        "rows": {"random": {"method": "random", "density": 0.1}},
        "columns": {"rte": {"task": "rte"}},
        "seeds": [0, 1],
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(grid))
    return path


def start(config: Path, *more: str) -> Forked:
    """scripts/table.py run, in a process group of its own."""
    command = [sys.executable, str(ROOT / "scripts" / "table.py"), "run", str(config), *more]
    runs = ["--output_dir", str(config.parent / "runs")]
    return Forked([*command, *runs], env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)


@pytest.fixture(autouse=True)
def quick_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of grids that run here too."""
    monkeypatch.setattr(runner, "subprocess", SUBPROCESS)
    monkeypatch.setattr(runner, "warm", lambda *_: None)


def until(happened: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def check_whole(config: Path) -> None:
    """Every cell was finished, once, and no file is damaged or left over."""
    grid = grids.read(config, output_dir=config.parent / "runs")
    for cell in grid.cells:
        assert cell.result() is not None
        assert SparseDiff.from_pretrained(cell.folder).num_active > 0
        assert cell.log.read_text().count("results: ") == 1
    assert not list((config.parent / "runs").rglob("*.tmp"))


@pytest.mark.slow  # a run that outlives its process is one of test_warm
@pytest.mark.parametrize("orphan", [False, True], ids=["with_its_run", "the_grid_alone"])
def test_a_killed_grid_is_finished_by_the_next_call(config: Path, orphan: bool):
    """SIGKILL in the second run; if that run lives on, the next call waits for it instead of doing it twice."""
    runs = config.parent / "runs"
    first = start(config)
    until(lambda: len(list(runs.rglob("results.json"))) == 1 and len(list(runs.rglob("command.txt"))) == 2)
    first.kill() if orphan else os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    (one,) = runs.rglob("results.json")
    before = one.stat().st_mtime_ns
    second = start(config)
    _, error = second.communicate(timeout=240)
    assert second.returncode == 0, error
    assert one.stat().st_mtime_ns == before
    check_whole(config)
    assert runner.missing(grids.read(config, output_dir=runs)) == []


@pytest.mark.slow
def test_two_grids_at_once_repeat_no_run(config: Path):
    both = [start(config), start(config)]
    for process in both:
        _, error = process.communicate(timeout=240)
        assert process.returncode == 0, error
    check_whole(config)


def test_a_cell_that_another_process_works_on_is_waited_for(config: Path):
    grid = grids.read(config, seeds=[0], output_dir=config.parent / "runs")
    (cell,) = grid.cells
    cell.folder.mkdir(parents=True)
    lock = FileLock(cell.folder / aside.LOCK, thread_local=False)  # released by another thread
    lock.acquire()

    def finish_elsewhere() -> None:
        finished(cell)
        lock.release()

    timer = threading.Timer(1.0, finish_elsewhere)
    timer.start()
    assert cell.is_running() and runner.run_here(grid) == []
    timer.join()
    assert not cell.log.exists()


@pytest.mark.slow  # a grid of shared cells is stopped so in test_shared_cells
def test_sigterm_stops_the_grid_and_its_run(config: Path):
    process = start(config)
    until(lambda: list((config.parent / "runs").rglob("command.txt")))
    process.terminate()
    _, error = process.communicate(timeout=120)
    assert process.returncode == 143 and "interrupted: stopped; the same command goes on" in error
    grid = grids.read(config, output_dir=config.parent / "runs")
    assert not any(cell.is_running() for cell in grid.cells)


def test_a_failed_run_is_listed_and_tried_again(config: Path, rte: Path, capfd: pytest.CaptureFixture[str]):
    (rte / "RTE").rename(rte / "away")
    process = start(config, "--seeds", "0")
    _, error = process.communicate(timeout=240)
    assert process.returncode == 1 and "failed: random/rte/seed0, log: " in error
    assert "error: 1 of 1 runs failed" in error and "RTE" in error
    (rte / "away").rename(rte / "RTE")
    grid = grids.read(config, seeds=[0], output_dir=config.parent / "runs")
    assert runner.run_here(grid) == []
    assert "done: random/rte/seed0: accuracy" in capfd.readouterr().err


def test_dry_run_prints_a_command_per_missing_run(config: Path):
    grid = grids.read(config, output_dir=config.parent / "runs")
    lines = runner.dry_run(grid).splitlines()
    assert len(lines) == 2
    assert all(" -m glue_sparse.cli.train " in line and "--resume_from_checkpoint auto" in line for line in lines)


def test_merging_workers_get_processes_of_their_own(config: Path):
    def command(*flags: str) -> list[str]:
        return grids.read(config, flags=flags).cells[0].commands()[-1]

    assert command("--merge_every", "5", "--num_workers", "3")[1:6] == [
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3",
    ]  # fmt: skip
    alone = command("--merge_every", "5", "--num_workers", "3", "--simulate", "true")
    assert alone[1:3] == ["-m", "glue_sparse.cli.train"]


def test_jobs_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    gpus = [devices.environment(slot, 4, 3)["CUDA_VISIBLE_DEVICES"] for slot in range(4)]
    assert gpus == ["4", "6", "4", "6"] and devices.environment(0, 4)["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in devices.environment(0, 1)
    alone, workers = (devices.environment(0, 1, several)["CUDA_VISIBLE_DEVICES"] for several in (1, 3))
    assert (alone, workers) == ("4", "4,6")  # a plain process would split its batch over all GPUs that it sees


def test_last_words_of_a_log(tmp_path: Path):
    log = tmp_path / "log.txt"
    assert runner.last_words(log) == "it wrote nothing"
    log.write_text("error: an earlier attempt\n")
    start = log.stat().st_size
    log.write_text(log.read_text() + "[rank1]: ValueError: too few\n  raise ChildFailedError(\n=====\n-----\n")
    assert runner.last_words(log, start) == "[rank1]: ValueError: too few"
    assert runner.last_words(log) == "error: an earlier attempt"


def test_a_cell_that_cannot_even_start_is_a_failed_one(config: Path):
    grid = grids.read(config, output_dir=config.parent / "runs")
    for cell in grid.cells:
        cell.log.mkdir(parents=True)  # a folder where a file should be
    assert runner.run_here(grid) == list(grid.cells)


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_an_array_job_runs_every_cell(config: Path, monkeypatch: pytest.MonkeyPatch, num_processes: int):
    submitit = pytest.importorskip("submitit")
    monkeypatch.chdir(config.parent)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # a job that counts GPUs loads torch for that
    flags = ["--use_cpu", "true"]
    grid = grids.read(config, seeds=[0], output_dir=config.parent / "runs", flags=flags, num_processes=num_processes)
    assert "submitted 1 runs" in slurm.run_slurm(grid, 1, ["timeout_min=5"], cluster="local")
    until(lambda: results.FILE_NAME in {p.name for p in grid.cells[0].folder.glob("*")})
    assert submitit and slurm.run_slurm(grid, 1, cluster="local").startswith("nothing to submit")
    with pytest.raises(ValueError, match="NAME=VALUE"):
        slurm.run_slurm(grids.read(config, output_dir=config.parent / "other"), 1, ["gpus"], cluster="local")


def test_rows_that_start_from_a_stage_prune_it_and_train_on(config: Path):
    """And where the stage fails, so do they, with a reason."""
    grid = yaml.safe_load(config.read_text())
    grid["stages"] = {"gates": {"method": "diff_gates", "learning_rate": 1e-3}}
    grid["rows"] = {"pruned": {"start": "gates", "method": "fixed_mask", "density": 0.05, "learning_rate": 1e-3}}
    grid["seeds"] = [0]
    config.write_text(yaml.safe_dump(grid))
    process = start(config)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "| pruned |" in out and "gates" not in out
    cell = grids.read(config, output_dir=config.parent / "runs").cells[1]
    first, second = SparseDiff.from_pretrained(cell.folder / "start"), SparseDiff.from_pretrained(cell.folder)
    assert first.num_active == second.num_active and first.info.density == second.info.density == 0.05
    result = cell.result()
    assert result and result.trained_entries == int(0.05 * result.cost["num_entries"])
    grid["stages"]["gates"]["fix_layer"] = [9]
    grid["base"]["num_train_epochs"] = 1
    config.write_text(yaml.safe_dump(grid))
    process = start(config, "--rows", "pruned", "--seeds", "1")
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "fix_layer 9: this model has layers" in err and "gates/rte/seed1, which it starts from, failed" in err
