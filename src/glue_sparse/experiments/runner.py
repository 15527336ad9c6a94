"""Run the cells of a grid as processes here, or print the commands that would."""

import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from glue_sparse.experiments import devices
from glue_sparse.experiments.cells import Cell, Grid
from glue_sparse.experiments.machines import HERE, Machines
from glue_sparse.experiments.warm import Process, Warm, warm
from glue_sparse.records.folder import check_places
from glue_sparse.records.results import Result
from glue_sparse.records.scales import scale_of
from glue_sparse.writing.ending import keeping, raising
from glue_sparse.writing.sentences import sentence

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

    A cell on which another process is at work is waited for and not run twice. With GPUs, each process of it gets one.

    Raises:
        ValueError: their folders cannot be made, or there are too few GPUs for `num_processes`.
        Interrupted: Ctrl-C or another signal to end; the running cells were told to stop.
    """
    grid.check()
    todo = missing(grid)
    devices.check(todo, jobs)
    check_places(cell.folder for cell in todo)
    total = len(grid.settled)
    bar = tqdm(total=total, initial=total - len(todo), desc=grid.name, unit="run")
    alone = [cell for cell in todo if cell.num_processes == 1]
    pool, running = ThreadPoolExecutor(jobs), Running(jobs, warm(alone, devices.shared(jobs)))
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
                        failed += _report(bar, cell, Attempt(None, 0.0, reason))
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
class Attempt:
    """How the work on one cell ended."""

    result: Result | None
    seconds: float
    reason: str
    """Why there is no result."""


def _report(bar: tqdm, cell: Cell, attempt: Attempt) -> list[Cell]:
    if attempt.result is None:
        bar.write(sentence(f"failed: {cell.name}, log: {cell.log}: {attempt.reason}"), file=sys.stderr)
        return [cell]
    scale = scale_of(attempt.result.main_metric)
    score = f"{attempt.result.main_metric} {scale.text(scale.shown(attempt.result.score))}"
    bar.update()
    bar.write(f"done: {cell.name}: {score}, {attempt.seconds:.0f} s", file=sys.stderr)
    return []


def start_process(command: list[str], log: IO[bytes], environment: dict[str, str], is_apart: bool) -> Process:
    """Start a command that writes to a log.

    Args:
        is_apart: for a launcher of several processes, which would pass on Ctrl-C to them, as the grid does: keep it out
            of the group of processes that hears of that.
    """
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=is_apart)


def last_words(log: Path, start: int = 0) -> str:
    """What a failed run said last, from byte `start` of its log on: its error sentence if it wrote one."""
    text = log.read_bytes()[start:].decode(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip("=- \t")]
    ours = [line for line in lines if line.startswith("error: ")]
    python = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line.rpartition("]: ")[2])]
    return (ours or python or lines or ["it wrote nothing"])[-1]


class Running:
    """The processes of the cells that run now, and the places for `jobs` of them."""

    def __init__(self, jobs: int, warm: Warm | None = None, machines: Machines = HERE) -> None:
        self.jobs, self.warm, self.machines, self.stopped = jobs, warm, machines, False
        self.processes: dict[str, Process] = {}
        self.slots = SimpleQueue[int]()
        for slot in range(jobs):
            self.slots.put(slot)

    def names(self) -> list[str]:
        return list(self.processes)

    def run(self, cell: Cell) -> Attempt:
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
                        reason = self._process(cell, slot)
                        is_tried = not cell.is_held()  # a run by hand may have been faster to start
                        result = cell.result()
        except (ValueError, OSError) as error:
            reason = str(error)
        finally:
            self.slots.put(slot)
        return Attempt(result, time.perf_counter() - started, reason)

    def _process(self, cell: Cell, slot: int) -> str:
        """Run a cell's commands to their end, or to the first that fails; returns their last words."""
        environment = devices.environment(slot, self.jobs, self.machines.share(cell.num_processes))
        with cell.log.open("ab") as log:
            start = log.tell()
            for command in cell.commands(self.machines):
                forked = self.warm and cell.num_processes == 1 and self.warm.start(command, log, environment)
                process = forked or start_process(command, log, environment, is_apart=cell.num_processes > 1)
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
