"""The cells of a grid: single runs, where they live and what runs them."""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from glue_sparse.arguments.run import Arguments
from glue_sparse.diffs.identity import FILE_NAME as DIFF_FILE
from glue_sparse.diffs.identity import identity
from glue_sparse.experiments.machines import HERE, MOST_PROCESSES, Machines
from glue_sparse.methods import registry as methods
from glue_sparse.records import folder as run_folder
from glue_sparse.records import results
from glue_sparse.records.results import Result
from glue_sparse.writing import aside
from glue_sparse.writing.words import prefixed

TRAIN, PRUNE = ("-m", "glue_sparse.cli.train"), ("-m", "glue_sparse.cli.prune_diff")
"""What Python is told to run, from any directory."""

START = "start"
"""In a row: the stage, or other row, whose diff (pruned first, for fixed_mask) its runs start from. Not a flag."""

PROCESSES = "num_processes"
"""In a base, row or column: processes that share the batches of each run. Not a flag of runs."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid: a row, a column and a seed."""

    row: str
    column: str
    seed: int
    arguments: Arguments
    argv: tuple[str, ...]
    """Flags, without the one about resuming."""
    start: "Cell | None" = None
    """The run whose diff it starts from."""
    prunes_first: bool = False
    """Whether that diff is pruned before this run starts from it."""
    shared_by: int = 1
    """Processes that share its batches; workers that merge have batches of their own."""

    @property
    def name(self) -> str:
        """As in messages: row/column/seedN."""
        return f"{self.row}/{self.column}/seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return Path(str(self.arguments.value("output_dir")))

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder / "log.txt"

    def result(self) -> Result | None:
        """The finished run, if there is one.

        Raises:
            ValueError: the folder holds a run with other settings, which must not pass for this one.
        """
        aside.mend(self.folder)
        path = self.folder / results.FILE_NAME
        if not path.exists():
            return None
        try:
            result = results.read(path)
        except ValueError as error:
            raise ValueError(f"{error}; delete it, and {self.name} runs again") from error
        self._check_same(result.arguments)
        return result

    @property
    def has_diverged(self) -> bool:
        """Whether it was tried with these settings, and its training diverged; raises as `result`."""
        # first whether there is a note at all: results are long to read, and few runs leave one
        if (was := run_folder.diverged(self.folder)) is None or self.result() is not None:
            return False
        if was:
            self._check_same(was)
        return True

    @property
    def is_cut_off(self) -> bool:
        """Whether the run that it starts from diverged, or is cut off itself, so that it cannot run."""
        return self.start is not None and not self.is_ready and (self.start.has_diverged or self.start.is_cut_off)

    def _check_same(self, was: dict[str, Any]) -> None:
        """Raise a ValueError where a run in this folder had other settings, or started from something else."""
        now = {**self.arguments.given, results.PROCESSES: self.shared_by}
        pruned, whole = self._pruned, self.start and self.start.folder / DIFF_FILE
        ignored = methods.find(self.arguments.method.method).ignores  # a base may have said it when the run was made
        was = {key: value for key, value in was.items() if key not in ignored or key in now}
        if pruned and pruned.exists():
            digest, info = identity(pruned)
            now = {**now, results.START: digest}
            if self.prunes_first and whole and whole.exists() and info.pruned_from != identity(whole)[0]:
                name = self.start.name if self.start else ""
                raise ValueError(f"{self.folder} holds a run that started from an earlier {name}: delete that folder")
        elif self.start:  # nothing to compare with until what it started from is there again
            was = {key: value for key, value in was.items() if key != results.START}
        results.check_same_settings(self.folder, was, now)

    @property
    def _pruned(self) -> Path | None:
        """The file that this cell starts from."""
        folder = self.arguments.method.start_diff
        return Path(folder, DIFF_FILE) if self.start and folder else None

    def is_held(self) -> bool:
        """Whether some process works in the folder right now."""
        return _is_locked(self.folder / aside.LOCK)

    def is_running(self) -> bool:
        """The same, or another grid is at work on this cell's commands."""
        return self.is_held() or _is_locked(self.turn)

    @property
    def turn(self) -> Path:
        """Lock of the grid whose turn it is to run this cell's commands."""
        return self.folder / ".grid.lock"

    @property
    def num_processes(self) -> int:
        """Processes that this one run consists of."""
        merge = self.arguments.merge
        return int(merge.num_workers or 1) if merge.merge_every and not merge.simulate else self.shared_by

    def shared(self, count: Any, is_told: bool) -> "Cell":
        """This cell as a run of so many processes; workers that merge stay as many as they are.

        Args:
            is_told: whether its own row or column says so.
        Raises:
            ValueError: no such number, or one that is told to workers that merge.
        """
        if type(count) is not int or not 1 <= count <= MOST_PROCESSES:
            raise ValueError(f"`{PROCESSES}` is a whole number from 1 to {MOST_PROCESSES}, not {count!r}")
        if not self.arguments.merge.merge_every:
            return replace(self, shared_by=count)
        if is_told:
            raise ValueError(f"`{PROCESSES}` is for processes that share batches, and of workers that merge there are "
                             f"`num_workers`: leave `{PROCESSES}` out")  # fmt: skip
        return self

    def value(self, name: str) -> Any:
        """A setting of this cell, or the name of the run it starts from (`start`); ValueError where there is none."""
        own = {START: self.start and self.start.row, PROCESSES: self.num_processes}
        return own[name] if name in own else self.arguments.value(name)

    @property
    def is_ready(self) -> bool:
        """Whether the run that it starts from, if any, is finished."""
        return self.start is None or self.start.result() is not None

    def commands(self, machines: Machines = HERE) -> list[list[str]]:
        """What runs this cell, one after the other: pruning where it starts from another run, and training.

        Machines beside the first of several have the last command alone.
        """
        if not (self.start and self._pruned and self.prunes_first):
            return [self._training(machines)]
        density = str(self.arguments.method.density)
        prune = [sys.executable, *PRUNE, str(self.start.folder), str(self._pruned.parent), "--density", density]
        return [prune, self._training(machines)]

    def _training(self, machines: Machines) -> list[str]:
        """From its last complete checkpoint if it has one, else from the start; what is finished is not repeated."""
        launched = machines.launcher(self.num_processes)
        return [sys.executable, *launched, *TRAIN, *self.argv, "--resume_from_checkpoint", "auto"]


def _is_locked(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0) if lock.exists() else nullcontext():
            return False
    except Timeout:
        return True


@dataclass(frozen=True)
class Grid:
    """A table's worth of runs.

    Attributes:
        rows, columns: name -> the settings that differ there, as flags of a run; a row may name a `start`.
        cells: every run, those that others start from first.
        published: names of files in `published/` whose numbers stand beside ours.
        figure: what `glue-sparse figure` draws.
        family: row -> the row of the YAML whose sweep it belongs to; only for rows of a sweep.
        tuned: the setting that is chosen on held-out data, if there is one.
        notes: row of the YAML -> a phrase about it, for its table of costs.
    """

    name: str
    title: str
    rows: dict[str, dict[str, Any]]
    columns: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    published: tuple[str, ...] = ()
    figure: dict[str, Any] = field(default_factory=dict)
    family: dict[str, str] = field(default_factory=dict)
    tuned: "Tuned | None" = None
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def places(self) -> list[tuple[str, str]]:
        """Every row and column."""
        return list(product(self.rows, self.columns))

    @property
    def settled(self) -> list[Cell]:
        """The cells whose settings are decided: all but those that wait for trials."""
        waiting = self.tuned.waiting if self.tuned else ()
        return [cell for cell in self.cells if (cell.row, cell.column) not in waiting]

    def check(self) -> None:
        """Raise a ValueError for a cell whose flags of the Trainer transformers refuses; loads torch."""
        for cell in self.cells:
            with prefixed(cell.name):
                cell.arguments.training  # noqa: B018

    def at(self, row: str, column: str) -> list[Cell]:
        """The cells of one place, in the order of seeds."""
        return [cell for cell in self.cells if (cell.row, cell.column) == (row, column)]


@dataclass(frozen=True)
class Tuned:
    """A setting of a grid that trials on held-out data choose for each row and column.

    Attributes:
        values: in the order of the YAML; of equal ones the first is chosen.
        hold_out, seed: of the trials.
        trials: a run for every row, column and value.
        found: (row, column) -> value -> its trial, for the trials that are through.
        used: (row, column) -> value of its runs: the best, or, where trials are missing, that of earlier runs.
        diverged: (row, column) -> the values whose trials diverged.
        waiting: the rows and columns whose trials are not all through, or have all diverged.
    """

    setting: str
    values: tuple[float, ...]
    hold_out: int
    seed: int
    trials: Grid
    found: dict[tuple[str, str], dict[float, Result]]
    used: dict[tuple[str, str], float]
    diverged: dict[tuple[str, str], frozenset[float]]
    waiting: frozenset[tuple[str, str]]

    @property
    def scores(self) -> dict[tuple[str, str], dict[float, float]]:
        """(row, column) -> value -> score of its trial."""
        return {place: {value: run.score for value, run in runs.items()} for place, runs in self.found.items()}
