"""Run the cells of a grid: as processes here, as printed commands, or as a Slurm array job."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, Literal

import torch
from tqdm.auto import tqdm

from glue_sparse.commands import Interrupted
from glue_sparse.grids import Cell, Grid

Launcher = Literal["local", "slurm"]
_WAIT = 2.0
"""Seconds between looks at a cell that another process is running."""


def missing(grid: Grid) -> list[Cell]:
    """The cells that have no result yet."""
    return [cell for cell in grid.cells if cell.result() is None]


def dry_run(grid: Grid) -> str:
    """One shell command per missing cell."""
    return "\n".join(shlex.join(cell.command()) for cell in missing(grid))


def run_here(grid: Grid, jobs: int = 1) -> list[Cell]:
    """Run the missing cells, `jobs` at a time, with a progress bar; returns those that failed.

    A cell on which another process is at work is waited for and not run twice. With GPUs, each job gets one.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the running cells were told to stop.
    """
    todo = missing(grid)
    bar = tqdm(total=len(grid.cells), initial=len(grid.cells) - len(todo), desc=grid.name, unit="run")
    pool, running, slots = ThreadPoolExecutor(jobs), _Running(), SimpleQueue[int]()
    for slot in range(jobs):
        slots.put(slot)
    with bar, _sigterm_as_interrupt():
        pending = {pool.submit(running.run, cell, slots, jobs): cell for cell in todo}
        failed = []
        try:
            while pending:
                done, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    cell, seconds = pending.pop(future), future.result()
                    failed += _report(bar, cell, seconds)
                if sys.stderr.isatty():
                    bar.set_postfix_str(", ".join(running.names()))
        except KeyboardInterrupt as error:
            pool.shutdown(wait=False, cancel_futures=True)
            running.stop()
            pool.shutdown(wait=True)
            raise Interrupted("stopped; the same command goes on where this one stopped") from error
    return [cell for cell in todo if cell in failed]


def _report(bar: tqdm, cell: Cell, seconds: float) -> list[Cell]:
    result = cell.result()
    if result is None:
        bar.write(f"failed: {cell.name}, log: {cell.log}: {last_line(cell.log)}", file=sys.stderr)
        return [cell]
    bar.update()
    bar.write(f"done: {cell.name}: {result.main_metric} {100 * result.score:.2f}, {seconds:.0f} s", file=sys.stderr)
    return []


def last_line(log: Path) -> str:
    """What a failed run said last: its error sentence if it wrote one."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    said = [line for line in lines if line.startswith("error: ")]
    return (said or lines or ["it wrote nothing"])[-1]


class _Running:
    """The processes of the cells that run now."""

    def __init__(self) -> None:
        self.processes: dict[str, subprocess.Popen] = {}
        self.stopped = False

    def names(self) -> list[str]:
        return list(self.processes)

    def run(self, cell: Cell, slots: "SimpleQueue[int]", jobs: int) -> float:
        """Seconds that the cell took, or that another process's work on it was waited for."""
        started, slot = time.perf_counter(), slots.get()
        try:
            while cell.is_running() and not self.stopped:
                time.sleep(_WAIT)
            if not self.stopped and cell.result() is None:
                self._process(cell, _environment(slot, jobs))
        finally:
            slots.put(slot)
        return time.perf_counter() - started

    def _process(self, cell: Cell, environment: dict[str, str]) -> None:
        with started(cell.command(), cell.log, environment) as process:
            self.processes[cell.name] = process
            process.wait()
            del self.processes[cell.name]

    def stop(self) -> None:
        """Ask the processes to end; each saves a checkpoint first where it can."""
        self.stopped = True
        for process in list(self.processes.values()):
            process.terminate()


def _environment(slot: int, jobs: int) -> dict[str, str]:
    """Share cores and GPUs among jobs that run side by side."""
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environment


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_slurm(grid: Grid, jobs: int, options: Sequence[str] = (), cluster: str = "slurm") -> str:
    """Submit the missing cells as one array job of at most `jobs` at a time; returns a line that says so.

    Args:
        options: NAME=VALUE pairs for `submitit.AutoExecutor.update_parameters`, for example gpus_per_node=1.
        cluster: `slurm`, or `local` to try it without a scheduler.
    Raises:
        ValueError: submitit is not installed, or does not know an option.
    """
    try:
        import submitit
    except ImportError as error:
        raise ValueError('--launcher slurm needs submitit: pip install "glue_sparse[slurm]"') from error
    todo, logs = missing(grid), Path("runs", grid.name, "slurm")
    if not todo:
        return "nothing to submit: every cell has its result"
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        parameters = dict(_option(text) for text in options)
        if cluster == "slurm":
            parameters["slurm_array_parallelism"] = jobs
        executor.update_parameters(name=grid.name, **parameters)
    except (NameError, TypeError, RuntimeError) as error:
        raise ValueError(f"submitit refuses: {error}") from error
    submitted = executor.map_array(run_command, [cell.command() for cell in todo], [cell.log for cell in todo])
    return f"submitted {len(submitted)} runs as array job {submitted[0].job_id.partition('_')[0]}; logs in {logs}"


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--slurm takes NAME=VALUE pairs, not {text!r}")
    return name, int(value) if value.isdecimal() else value


def run_command(command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
    """Run one cell's command to its end, as a job of the array does; what it prints goes to the end of `log`.

    Raises:
        RuntimeError: it failed.
    """
    with started(command, log, environment) as process:
        process.wait()
    if process.returncode:
        raise RuntimeError(f"the run failed, log: {log}: {last_line(log)}")


@contextmanager
def started(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
    """The running process of a command that prints into `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as out:
        yield subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
