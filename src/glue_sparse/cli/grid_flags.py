"""Flags that choose a part of a grid, and those of commands that run one."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from glue_sparse.cli import statistics_flags
from glue_sparse.cli.numbers import add_number
from glue_sparse.experiments import grid_file, grids
from glue_sparse.experiments.cells import Grid
from glue_sparse.experiments.machines import MOST_PROCESSES
from glue_sparse.records import archive
from glue_sparse.writing.bounds import SEED, Bounds, Number
from glue_sparse.writing.words import prefixed

JOBS = Bounds(1, 1024)
PROCESSES = Bounds(1, MOST_PROCESSES)
_CHOICE = ("tasks", "rows", "seeds", "output_dir", "tune_values", "num_processes")
"""What chooses a part of a grid."""


def add_grid(parser: ArgumentParser, *name: str, **options: Any) -> None:
    """What takes a grid, by name or by path; options are those of `add_argument`."""
    action: Any = parser.add_argument(*name, type=Path, **options)
    action.completer = _complete


def _complete(prefix: str, **_: Any) -> list[str]:
    """What a shell offers: the grids that come with the package, and files."""
    return [*grid_file.names(), *import_module("argcomplete.completers").FilesCompleter()(prefix)]


def add_grid_flags(parser: ArgumentParser) -> None:
    """Flags that choose a part of a grid."""
    parser.add_argument("--tasks", nargs="+", default=[], help="only the columns of these tasks, or with these names")
    parser.add_argument("--rows", nargs="+", default=[], help="only these rows")
    add_number(parser, "--seeds", nargs="+", kind=int, default=[], help="instead of the grid's seeds", bounds=SEED)
    parser.add_argument("--output_dir", type=Path, help="folder of the runs; default: runs/GRID")
    parser.add_argument("--tune_values", nargs="+", type=number, default=[], help="instead of those that `tune` lists")
    add_processes(parser)
    parser.add_argument("--results_dir", type=Path, default=Path("results"), help="where table and figure are written")


def add_processes(parser: ArgumentParser) -> None:
    """The flag that makes each run several processes."""
    add_number(parser, "--num_processes", kind=int, bounds=PROCESSES,
               help="processes of each run, which share its batches; default: what the grid says, or 1")  # fmt: skip


def number(text: str) -> float:
    """A value of a setting as it is typed; whole numbers stay so, since some settings are."""
    return Number(int if text.isdecimal() else float)(text)


def add_run_flags(parser: ArgumentParser) -> None:
    """Flags of a command that does a grid's missing runs."""
    add_number(parser, "--jobs", kind=int, default=1, help="runs side by side; with GPUs each has its own", bounds=JOBS)
    parser.add_argument("--dry_run", action="store_true", help="print the commands of the missing runs instead")


def add_archive(parser: ArgumentParser) -> None:
    """The flag of commands that show a grid's runs."""
    parser.add_argument("--archive", type=Path, help="the runs in a file of `glue-sparse results collect`, GRID.json")


@contextmanager
def archived(grid: Path, arguments: Namespace) -> Iterator[None]:
    """Within the block a grid's runs are those of the archive, where one is given."""
    if arguments.archive is None:
        yield
        return
    if arguments.output_dir is not None:
        raise ValueError("`archive` stands for a folder of runs: leave `output_dir` out")
    with TemporaryDirectory() as folder, prefixed(str(arguments.archive)):
        archive.unpack(archive.read([arguments.archive]), Path(folder))
        arguments.output_dir = Path(folder, grid.stem)
        yield


def check_no_grid_flags(arguments: Namespace, flags: list[str]) -> None:
    """Raise a ValueError for flags that folders of runs, given in the place of a grid, would ignore."""
    of_grids = (*_CHOICE, "archive", "begun", *statistics_flags.NAMES)
    given = [*flags, *(f"`{name}`" for name in of_grids if getattr(arguments, name, None))]
    if given:
        raise ValueError(f"{given[0]} goes with a grid, not with folders of runs: leave it out")


def read_grid(path: Path, arguments: Namespace, flags: list[str]) -> Grid:
    """The part of a grid that the flags choose."""
    chosen = {key: getattr(arguments, key) for key in _CHOICE}
    return grids.read(path, **chosen, flags=flags)
