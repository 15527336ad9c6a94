"""Grids of runs: a YAML of base settings, rows, columns and seeds, and the cells it stands for."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from glue_sparse import published, results, run_folder
from glue_sparse.arguments import Arguments
from glue_sparse.command_line import parse
from glue_sparse.commands import closest
from glue_sparse.methods import check_method
from glue_sparse.results import Result
from glue_sparse.tasks import check_task

KEYS = ("title", "base", "rows", "columns", "seeds", "published", "figure")


@dataclass(frozen=True)
class Cell:
    """One run of a grid: a row, a column and a seed."""

    row: str
    column: str
    seed: int
    arguments: Arguments
    argv: tuple[str, ...]
    """Script and flags, without those about resuming."""

    @property
    def name(self) -> str:
        """As in messages: row/column/seedN."""
        return f"{self.row}/{self.column}/seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return Path(str(self.arguments.training.output_dir))

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder / "log.txt"

    def result(self) -> Result | None:
        """The finished run, if there is one.

        Raises:
            ValueError: the folder holds a run with other settings, which must not pass for this one.
        """
        path = self.folder / results.FILE_NAME
        if not path.exists():
            return None
        result = results.read(path)
        results.check_same_settings(self.folder, result.arguments, self.arguments.given)
        return result

    def is_running(self) -> bool:
        """Whether some process works in the folder right now."""
        if not (self.folder / results.LOCK).exists():
            return False
        try:
            with FileLock(self.folder / results.LOCK, timeout=0):
                return False
        except Timeout:
            return True

    @property
    def takes_processes(self) -> bool:
        """Whether this one run consists of several processes."""
        return bool(self.arguments.merge.merge_every) and not self.arguments.merge.simulate

    def command(self) -> list[str]:
        """What runs this cell: from its last complete checkpoint if it has one, else from the start."""
        python, merge = [sys.executable], self.arguments.merge
        if self.takes_processes:
            python += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(merge.num_workers)]
        resume = run_folder.complete_checkpoints(self.folder)
        how = ["--resume_from_checkpoint", "last"] if resume else ["--overwrite", "true"]
        return [*python, *self.argv, *how]


@dataclass(frozen=True)
class Grid:
    """A table's worth of runs.

    Attributes:
        rows, columns: name -> the settings that differ there, as flags of `scripts/train.py`.
        published: names of files in `published/` whose numbers stand beside ours.
        figure: what `scripts/figure.py` draws.
    """

    name: str
    title: str
    rows: dict[str, dict[str, Any]]
    columns: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    published: tuple[str, ...] = ()
    figure: dict[str, Any] = field(default_factory=dict)

    def at(self, row: str, column: str) -> list[Cell]:
        """The cells of one place, in the order of seeds."""
        return [cell for cell in self.cells if (cell.row, cell.column) == (row, column)]


def read(
    path: Path,
    script: Path,
    *,
    tasks: Sequence[str] = (),
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (),
    output_dir: Path | None = None,
    flags: Sequence[str] = (),
) -> Grid:
    """The grid that a YAML describes; every cell's settings are checked before this returns.

    Args:
        script: `scripts/train.py`; the settings that the grid leaves open are those of `configs/glue.yaml` beside it.
        tasks: keep the columns of these tasks only.
        rows: keep these rows only.
        seeds: instead of the YAML's seeds.
        output_dir: folder of all runs; by default runs/GRID/MODEL.
        flags: further flags of `scripts/train.py` for every cell; they win over the YAML.
    Raises:
        ValueError: an unknown key, method or task, a duplicate seed, an empty grid, a bad value.
    """
    config = _load(path)
    kept_rows = _chosen(path, "row", _settings_of(path, config, "rows"), rows)
    kept_columns = _of_tasks(path, _settings_of(path, config, "columns"), tasks)
    all_seeds = _seeds(path, list(seeds) or config.get("seeds"))
    _no_clash(path, flags, {key for part in (kept_rows, kept_columns) for s in part.values() for key in s})
    root, cells = output_dir or Path("runs", path.stem), []
    for seed, column, row in product(all_seeds, kept_columns, kept_rows):
        settings = {**(config.get("base") or {}), **kept_columns[column], **kept_rows[row], "seed": seed}
        with _prefixed(f"{path}, {row}/{column}"):
            cells.append(_cell(script, row, column, seed, [*_argv(settings), *flags], root))
    figure = config.get("figure") or {}
    sources = tuple(config.get("published") or ())
    with _prefixed(str(path)):
        for name in sources:
            published.read(name)
    title = str(config.get("title", path.stem))
    return Grid(path.stem, title, kept_rows, kept_columns, all_seeds, tuple(cells), sources, figure)


def _load(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a grid: it needs rows, columns and seeds")
    for key in config:
        if key not in KEYS:
            raise ValueError(f"{path}: unknown key {key!r}{closest(str(key), KEYS, otherwise=_list(KEYS))}")
    if not isinstance(config.get("base") or {}, dict):
        raise ValueError(f"{path}: `base` maps flags to values")
    return config


def _settings_of(path: Path, config: dict[str, Any], part: str) -> dict[str, dict[str, Any]]:
    named = config.get(part)
    if not isinstance(named, dict) or not named:
        raise ValueError(f"{path}: the grid is empty: `{part}` names nothing")
    for name, settings in named.items():
        if not re.fullmatch(r"[\w.+-]+", str(name)):
            raise ValueError(f"{path}: {name!r} in `{part}` becomes a folder: use letters, digits and . _ + - only")
        if not isinstance(settings, dict):
            raise ValueError(f"{path}: {name} in `{part}` maps flags to values, for example {{method: fish}}")
    return {str(name): settings for name, settings in named.items()}


def _chosen(path: Path, kind: str, named: dict[str, dict[str, Any]], wanted: Sequence[str]) -> dict[str, Any]:
    for name in wanted:
        if name not in named:
            raise ValueError(f"{path} has no {kind} {name!r}{closest(name, named, otherwise=_list(named))}")
    return {name: settings for name, settings in named.items() if not wanted or name in wanted}


def _of_tasks(path: Path, columns: dict[str, dict[str, Any]], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    task_of = {name: str(settings.get("task", name)) for name, settings in columns.items()}
    for task in tasks:
        if task not in task_of.values():
            hint = closest(task, task_of.values(), otherwise=_list(task_of.values()))
            raise ValueError(f"{path} has no column for task {task!r}{hint}")
    return {name: settings for name, settings in columns.items() if not tasks or task_of[name] in tasks}


def _list(known: Iterable[str]) -> str:
    return f"; there are {', '.join(dict.fromkeys(known))}"


def _seeds(path: Path, seeds: Any) -> tuple[int, ...]:
    if not isinstance(seeds, list) or not seeds:
        raise ValueError(f"{path}: the grid is empty: `seeds` names none")
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"{path}: a seed is a whole number from 0 on, not {seed!r}")
        if seeds.count(seed) > 1:
            raise ValueError(f"{path}: seed {seed} is given twice")
    return tuple(seeds)


def _no_clash(path: Path, flags: Sequence[str], varied: set[str]) -> None:
    """A flag that overrode what rows or columns differ in would make them the same run."""
    for word in flags:
        name = word.lstrip("-").partition("=")[0].replace("-", "_")
        if word.startswith("--") and name in {*varied, "seed", "output_dir"}:
            raise ValueError(f"{word} is decided by {path}: choose rows, --tasks, --seeds or --output_dir of the grid")


def _argv(settings: dict[str, Any]) -> list[str]:
    """Settings as a command line; lists become several words."""
    words = []
    for key, value in settings.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{key}", *(str(v).lower() if isinstance(v, bool) else str(v) for v in values)]
    return words


@contextmanager
def _prefixed(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _cell(script: Path, row: str, column: str, seed: int, argv: list[str], root: Path) -> Cell:
    settings = script.parents[1] / "configs" / "glue.yaml"
    first = parse(argv, config=settings)
    check_method(first.method.method)
    check_task(first.task.task)
    if first.model.model is None:
        raise ValueError("a model is missing: give --model a hub id, a folder, or minilm")
    if first.merge.merge_every and not first.merge.num_workers:
        raise ValueError("merge_every needs num_workers in a grid")
    folder = root / Path(first.model.model).name / row / column / f"seed{seed}"
    argv = [*argv, "--output_dir", str(folder)]
    return Cell(row, column, seed, parse(argv, config=settings), (str(script), *argv))
