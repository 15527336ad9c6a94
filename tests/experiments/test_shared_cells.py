"""Grids whose cells are several processes: what is said about them, what each is given, and real ones on gloo."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from forked import Launched
from glue_sparse.experiments import devices, grids, runner, slurm
from glue_sparse.experiments.cells import Cell
from glue_sparse.experiments.machines import Machines
from glue_sparse.records import checkpoints, results
from glue_sparse.writing.ending import Interrupted
from rare import rarely
from small_grids import SMALL, finished, read, write

MERGING = {"method": "fish", "merge_every": 5, "num_workers": 3}


def test_a_row_wins_over_the_base_and_a_flag_over_both(tmp_path: Path):
    rows = {"random": {"method": "random"}, "more": {"method": "dense", "num_processes": 4}, "merging": MERGING}
    changes = {"base": {**SMALL["base"], "num_processes": 2}, "rows": rows}

    def counts(grid: grids.Grid) -> dict[str, int]:
        return {row: grid.at(row, "rte")[0].num_processes for row in grid.rows}

    grid = read(tmp_path, **changes)
    assert counts(grid) == {"random": 2, "more": 4, "merging": 3}
    assert grid.cells[0].value("num_processes") == 2 and "--num_processes" not in grid.cells[0].argv
    with pytest.raises(ValueError, match="`num_processes` is decided by"):
        grids.read(write(tmp_path, **changes), num_processes=8)
    asked = grids.read(write(tmp_path, **changes), rows=["random", "merging"], num_processes=8)
    assert counts(asked) == {"random": 8, "merging": 3}
    assert counts(read(tmp_path)) == {"random": 1, "long": 1}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"num_processes": 0}, "random/rte: `num_processes` is a whole number from 1 to 4096, not 0"),
        ({"num_processes": "two"}, "random/rte: `num_processes` is a whole number from 1 to 4096, not 'two'"),
        ({"num_processes": 3, **MERGING}, "of workers that merge there are `num_workers`: leave `num_processes` out"),
    ],
)
def test_wrong_numbers_are_refused(tmp_path: Path, row: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        read(tmp_path, rows={"random": {"method": "random", **row}})


def test_dry_run_prints_the_launcher(tmp_path: Path):
    line = runner.dry_run(grids.read(write(tmp_path), seeds=[0], rows=["random"], tasks=["rte"], num_processes=2))
    launcher = " -m torch.distributed.run --standalone --nproc_per_node 2 -m glue_sparse.cli.train --model minilm "
    assert launcher in line and line.endswith("--resume_from_checkpoint auto")


def test_a_result_of_one_process_is_none_of_two(tmp_path: Path):
    def cell(num_processes: int) -> Cell:
        return grids.read(write(tmp_path), output_dir=tmp_path / "runs", num_processes=num_processes).cells[0]

    one, one_folder = finished(cell(1)), cell(1).folder
    with pytest.raises(ValueError, match="holds a run of 1 process, not 2: start as many, choose another `output_dir`"):
        cell(2).result()
    two = replace(one, arguments={**one.arguments, "world_size": 2})
    results.write(two, one_folder)
    assert cell(2).result() == two
    with pytest.raises(ValueError, match="holds a run of 2 processes, not 1"):
        cell(1).result()
    assert results.settings(two.arguments) != results.settings(one.arguments)  # as groups of runs and archives ask
    merged = {**one.arguments, "merge_every": 5}
    assert results.settings({**merged, "world_size": 2}) == results.settings({**merged, "world_size": 1})


def of_processes(tmp_path: Path, count: int, **base: Any) -> list[Cell]:
    return [*read(tmp_path, base={**SMALL["base"], "num_processes": count, **base}).cells]


def test_each_place_has_gpus_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 32)

    def visible(jobs: int, count: int) -> list[str]:
        return [devices.environment(slot, jobs, count)["CUDA_VISIBLE_DEVICES"] for slot in range(jobs)]

    assert visible(2, 4) == ["0,1,2,3", "4,5,6,7"] and visible(3, 2) == ["0,1", "2,3", "4,5"]
    assert visible(2, 1) == ["0", "4"] and visible(1, 3) == ["0,1,2"]
    assert devices.environment(0, 2, 4)["OMP_NUM_THREADS"] == "4"
    four = of_processes(tmp_path, 4)
    devices.check(four, 2)
    with pytest.raises(ValueError, match=r"random/rte/seed0 takes 4 GPUs for each of 3 `jobs`, .* here are 8: lower"):
        devices.check(four, 3)
    with pytest.raises(ValueError, match="takes 9 GPUs, one for each process, and here are 8: lower `num_processes`$"):
        runner.run_here(read(tmp_path, base={**SMALL["base"], "num_processes": 9}))
    devices.check(of_processes(tmp_path, 16), 1, num_machines=2)
    devices.check(of_processes(tmp_path, 9, use_cpu=True), 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    devices.check(four, 3)


def test_launchers_of_several_machines_meet_on_the_first(tmp_path: Path):
    (cell, *_) = of_processes(tmp_path, 4)
    words = " ".join(cell.commands(Machines(2, 1, "first:12345", "job_7"))[-1])
    assert " --nnodes 2 --rdzv_backend c10d --rdzv_endpoint first:12345 --rdzv_id job_7 " in words
    assert " --nproc_per_node 2 -m glue_sparse.cli.train " in words


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["nodes=2"], "`slurm` nodes=2 is for runs of at least as many processes, and random/rte/seed0 has 1: give"),
        (["tasks_per_node=4"], "`slurm` tasks_per_node=4 would start each run as often"),
        (["nodes=3"], "4 processes cannot be shared out evenly over 3 nodes"),
    ],
)
def test_jobs_that_would_waste_nodes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
):
    pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    base = {**SMALL["base"], "num_processes": 4} if options == ["nodes=3"] else SMALL["base"]
    with pytest.raises(ValueError, match=said):
        slurm.run_slurm(read(tmp_path, base=base), 1, options, cluster="local")
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def shared(tiny_bert: str, rte: Path, tmp_path: Path) -> Callable[..., grids.Grid]:
    """Two runs of two processes."""
    base = {
        "model": tiny_bert, "data_dir": str(rte), "max_steps": 10, "save_strategy": "steps", "save_steps": 4,
        "save_total_limit": 1, "disable_tqdm": True, "eval_strategy": "no", "use_cpu": True, "num_processes": 2,
    }  # fmt: skip
    rows = {"random": {"method": "random", "density": 0.1}}
    grid = {"base": base, "rows": rows, "columns": {"rte": {"task": "rte"}}, "seeds": [0, 1]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(grid))
    return lambda **options: grids.read(tmp_path / "tiny.yaml", output_dir=tmp_path / "runs", **options)


def stop_when(happened: Callable[[], bool]) -> threading.Thread:
    """Ctrl-C by another process, a SIGTERM, as soon as something has happened."""

    def watch() -> None:
        end = time.monotonic() + 200
        while not happened() and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(("launcher", "jobs"), rarely([("forked", 1), ("torchrun", 2)], usual=[("forked", 1)]))
def test_a_grid_of_shared_cells_is_stopped_and_goes_on(
    shared: Callable[..., grids.Grid], monkeypatch: pytest.MonkeyPatch, launcher: str, jobs: int
):
    if launcher == "forked":
        fake = SimpleNamespace(Popen=Launched, STDOUT=subprocess.STDOUT)
        monkeypatch.setattr(runner, "subprocess", fake)
    cells = shared().cells
    watcher = stop_when(lambda: any(cells[0].folder.glob("checkpoint-*/checkpoint.json")))
    with pytest.raises(Interrupted, match="the same command goes on"):
        runner.run_here(shared(), jobs)
    watcher.join()
    assert not any(cell.is_running() for cell in cells)
    assert cells[0].result() is None
    last = checkpoints.complete(cells[0].folder)[-1]
    checkpoints.check(last)
    assert checkpoints.num_ranks(last) == 2
    said = f"interrupted: stopped; to go on after step {last.name.removeprefix('checkpoint-')}, repeat"
    assert cells[0].log.read_text().count(said) == 2
    assert runner.run_here(shared(), jobs) == []
    for cell in cells:
        result = cell.result()
        assert result and result.arguments["world_size"] == 2 and result.history[-1]["step"] == 10
        assert cell.log.read_text().count("results: ") == 1
    assert runner.missing(shared()) == []
