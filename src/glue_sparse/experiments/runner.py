"""Run the cells of a grid: as processes here, as printed commands, or as a Slurm array job."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from glue_sparse.experiments.cells import Cell, Grid
from glue_sparse.experiments.warm import Process, Warm, warm
from glue_sparse.records.folder import check_places
from glue_sparse.records.results import Result
from glue_sparse.records.scales import scale_of
from glue_sparse.writing.ending import keeping, raising
from glue_sparse.writing.extras import needed
from glue_sparse.writing.sentences import sentence

Launcher = Literal["local", "slurm"]
_WAIT = 2.0
"""Seconds between looks at a cell that another process is running."""


def missing(grid: Grid) -> list[Cell]:
    """The cells that have yet to run: not those that wait for trials, that diverged, or start from one that did."""
    unfinished = [cell for cell in grid.settled if cell.result() is None]
    return [cell for cell in unfinished if not cell.has_diverged and not cell.is_cut_off]


def dry_run(grid: Grid) -> str:
    """One line of shell per missing cell, in an order that can be followed."""
    grid.check()
    return "\n".join(" && ".join(map(shlex.join, cell.commands())) for cell in missing(grid))


def run_here(grid: Grid, jobs: int = 1) -> list[Cell]:
    """Run the missing cells, `jobs` at a time, with a progress bar; returns those that failed.

    A cell on which another process is at work is waited for and not run twice. With GPUs, each cell gets one.

    Raises:
        ValueError: their folders cannot be made.
        Interrupted: Ctrl-C or another signal to end; the running cells were told to stop.
    """
    grid.check()
    todo = missing(grid)
    check_places(cell.folder for cell in todo)
    total = len(grid.settled)
    bar = tqdm(total=total, initial=total - len(todo), desc=grid.name, unit="run")
    alone = [cell for cell in todo if not cell.takes_processes]
    pool, running = ThreadPoolExecutor(jobs), _Running(jobs, warm(alone, _shared(jobs)))
    with keeping(lambda: "stopped; the same command goes on where this one stopped"), bar, raising():
        waiting, pending, failed = list(todo), {}, []
        try:
            while waiting or pending:
                for cell in list(waiting):
                    if cell.is_ready:
                        pending[pool.submit(running.run, cell)] = cell
                    elif cell.start in waiting or cell.start in pending.values():
                        continue
                    else:
                        reason = f"{cell.start and cell.start.name}, which it starts from, failed"
                        failed += _report(bar, cell, _Attempt(None, 0.0, reason))
                    waiting.remove(cell)
                done, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    failed += _report(bar, pending.pop(future), future.result())
                if sys.stderr.isatty():
                    bar.set_postfix_str(", ".join(running.names()))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            running.stop()
            pool.shutdown(wait=True)
    return [cell for cell in todo if cell in failed]


@dataclass(frozen=True)
class _Attempt:
    """How the work on one cell ended."""

    result: Result | None
    seconds: float
    reason: str
    """Why there is no result."""


def _report(bar: tqdm, cell: Cell, attempt: _Attempt) -> list[Cell]:
    if attempt.result is None:
        bar.write(sentence(f"failed: {cell.name}, log: {cell.log}: {attempt.reason}"), file=sys.stderr)
        return [cell]
    scale = scale_of(attempt.result.main_metric)
    score = f"{attempt.result.main_metric} {scale.text(scale.shown(attempt.result.score))}"
    bar.update()
    bar.write(f"done: {cell.name}: {score}, {attempt.seconds:.0f} s", file=sys.stderr)
    return []


def last_words(log: Path, start: int = 0) -> str:
    """What a failed run said last, from byte `start` of its log on: its error sentence if it wrote one."""
    text = log.read_bytes()[start:].decode(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip("=- \t")]
    ours = [line for line in lines if line.startswith("error: ")]
    python = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line.rpartition("]: ")[2])]
    return (ours or python or lines or ["it wrote nothing"])[-1]


class _Running:
    """The processes of the cells that run now, and the places for `jobs` of them."""

    def __init__(self, jobs: int, warm: Warm | None = None) -> None:
        self.jobs, self.warm, self.stopped = jobs, warm, False
        self.processes: dict[str, Process] = {}
        self.slots = SimpleQueue[int]()
        for slot in range(jobs):
            self.slots.put(slot)

    def names(self) -> list[str]:
        return list(self.processes)

    def run(self, cell: Cell) -> _Attempt:
        """Run a cell, or wait for another process that does; any problem becomes a failed attempt."""
        started, slot = time.perf_counter(), self.slots.get()
        result, reason = None, "stopped"
        try:
            cell.folder.mkdir(parents=True, exist_ok=True)
            turn, is_tried = FileLock(cell.turn, timeout=0), False
            while result is None and not is_tried and not self.stopped:
                if cell.is_running():
                    time.sleep(_WAIT)
                    continue
                with suppress(Timeout), turn:  # another grid may take it just now
                    result = cell.result()
                    if result is None:
                        reason = self._process(cell, _environment(slot, self.jobs, cell.takes_processes))
                        is_tried = not cell.is_held()  # a run by hand may have been faster to start
                        result = cell.result()
        except (ValueError, OSError) as error:
            reason = str(error)
        finally:
            self.slots.put(slot)
        return _Attempt(result, time.perf_counter() - started, reason)

    def _process(self, cell: Cell, environment: dict[str, str]) -> str:
        """Run a cell's commands to their end, or to the first that fails; returns their last words."""
        with cell.log.open("ab") as log:
            start = log.tell()
            for command in cell.commands():
                forked = self.warm and not cell.takes_processes and self.warm.start(command, log, environment)
                process = forked or subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
                self.processes[cell.name] = process
                if self.stopped:  # stop() may have looked just before
                    process.terminate()
                status = process.wait()
                del self.processes[cell.name]
                if status:
                    break
        return last_words(cell.log, start)

    def stop(self) -> None:
        """Ask the processes to end; each saves a checkpoint first where it can."""
        self.stopped = True
        for process in list(self.processes.values()):
            process.terminate()
        if self.warm:
            self.warm.close()


def _shared(jobs: int) -> dict[str, str]:
    """The environment of all jobs, which share the cores where they run side by side."""
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    return environment


def _environment(slot: int, jobs: int, takes_processes: bool) -> dict[str, str]:
    """That of one, which has a GPU of its own; a run of several processes alone may use all GPUs."""
    environment = _shared(jobs)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else _gpus()
    if gpus and (jobs > 1 or not takes_processes):
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environment


@lru_cache(maxsize=1)
def _gpus() -> list[str]:
    """Numbers of the GPUs here; torch is loaded for this alone, and not where a table is only shown."""
    return [str(i) for i in range(import_module("torch").cuda.device_count())]


def run_slurm(grid: Grid, jobs: int, options: Sequence[str] = (), cluster: str = "slurm") -> str:
    """Submit the missing cells as an array job of at most `jobs` at a time; returns a line that says so.

    Cells that start from other runs go into further arrays, each of which begins when the one before it is through.

    Args:
        options: NAME=VALUE pairs for `submitit.AutoExecutor.update_parameters`, for example gpus_per_node=1.
        cluster: `slurm`, or `local` to try it without a scheduler.
    Raises:
        ValueError: submitit is not installed, or does not know an option.
    """
    submitit = needed("submitit", "`launcher` slurm", "slurm")
    grid.check()
    todo, logs = missing(grid), Path("runs", grid.name, "slurm")
    if not todo:
        return "nothing to submit: no run is missing that could run now"
    check_places(cell.folder for cell in todo)
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        parameters = dict(_option(text) for text in options)
        if cluster == "slurm":
            parameters["slurm_array_parallelism"] = jobs
        executor.update_parameters(name=grid.name, **parameters)
        arrays = []
        for cells in _waves(todo):
            if arrays and cluster == "slurm":
                given = parameters.get("slurm_additional_parameters", {})
                executor.update_parameters(
                    slurm_additional_parameters={**given, "dependency": f"afterany:{arrays[-1]}"}
                )
            arrays.append(executor.map_array(run_cell, cells)[0].job_id.partition("_")[0])
    except (NameError, TypeError, RuntimeError) as error:
        raise ValueError(f"submitit refuses: {error}") from error
    return f"submitted {len(todo)} runs as array job {' and then '.join(arrays)}; logs in {logs}"


def _waves(todo: Sequence[Cell]) -> list[list[Cell]]:
    """The cells in groups, each of which needs only earlier ones."""
    waves, left = [], list(todo)
    while left:
        waves.append([cell for cell in left if cell.start not in left])
        left = [cell for cell in left if cell not in waves[-1]]
    return waves


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"`slurm` takes NAME=VALUE pairs, not {text!r}")
    return name, int(value) if value.isdecimal() else value


def run_cell(cell: Cell) -> float:
    """What a job of the array does, also when Slurm starts it again: the cell, if it is still missing; its score.

    Raises:
        RuntimeError: it failed.
    """
    attempt = _Running(1).run(cell)
    if attempt.result is None:
        raise RuntimeError(f"{cell.name} failed, log: {cell.log}: {attempt.reason}")
    return attempt.result.score
