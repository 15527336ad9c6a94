"""Run a grid of experiments and print its table: for example

    glue-sparse table run table_1 --model minilm --data_dir path/to/glue --tasks rte mrpc
    glue-sparse table show table_1 --model minilm --data_dir path/to/glue --tasks rte mrpc
    glue-sparse table show table_1 --model minilm --archive docs/results/runs/table_1.json
    glue-sparse table run table_1 --num_processes 4 --jobs 2
    glue-sparse table show runs/quickstart
    glue-sparse table list

A grid is a YAML file, or the name of one of those that come with the package, which `list` names.

`run` does the runs that are missing and can be stopped and started again at any time; a failed run is listed with its
log and tried again by the next call. Then, as `show` does, it prints the table, writes it to results/NAME.{md,csv,tex}
and draws the figure if the grid has one. `show` also takes a folder, and prints all runs below it. Other flags
(--num_train_epochs 3 --bf16 true ...) are those of `glue-sparse train`, for all runs.

A grid with `tune` chooses a setting for each row and column first: `run` does a trial of each value, scored on held-out
training examples, below runs/GRID/tune, prints them, and then does the grid's runs with the best values. The setting
as a flag (--learning_rate 0.1) is used for all runs instead.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from glue_sparse.arguments.yaml_file import yaml_object
from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.grid_flags import (
    add_archive,
    add_grid,
    add_grid_flags,
    add_run_flags,
    archived,
    check_no_grid_flags,
    read_grid,
)
from glue_sparse.cli.statistics_flags import add_statistics_flags, statistics_of
from glue_sparse.experiments import grid_file, runner, slurm, tuning
from glue_sparse.experiments.cells import Grid
from glue_sparse.records import results
from glue_sparse.reports import tables, trials
from glue_sparse.reports.figures import grids as figures
from glue_sparse.reports.sheet import Sheet
from glue_sparse.reports.statistics import SPREAD, Statistics
from glue_sparse.writing import tables as text_tables
from glue_sparse.writing.extras import MissingExtra
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.sentences import say


def parser(prog: str | None = None) -> Parser:
    """The command line."""
    top = Parser(prog, description=__doc__, passes_on=True)
    verbs = top.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="do the missing runs of a grid", passes_on=True)
    add_grid(run, "config", help="a grid, for example table_1")
    add_run_flags(run)
    run.add_argument("--launcher", choices=("local", "slurm"), default="local", help="slurm: submit an array job")
    run.add_argument(
        "--slurm", nargs="+", default=[], metavar="NAME=VALUE", help="options of the array job: gpus_per_node=1 ..."
    )
    add_grid_flags(run)
    add_statistics_flags(run)
    show = verbs.add_parser("show", help="print a grid's table, or all runs below a folder", passes_on=True)
    add_grid(show, "config", help="a grid, or a folder of runs")
    add_grid_flags(show)
    add_archive(show)
    show.add_argument("--begun", action="store_true", help="leave out rows and columns that have no finished run")
    add_statistics_flags(show)
    verbs.add_parser("list", help="the grids that come with the package")
    return top


def run(arguments: Namespace, flags: list[str]) -> int:
    """See `run_grid`, here or by Slurm."""
    if arguments.slurm and arguments.launcher != "slurm":
        raise ValueError("`slurm` has no effect without `launcher` slurm: leave it out, or give that")
    return run_grid(arguments, flags, statistics_of(arguments))


def run_grid(arguments: Namespace, flags: list[str], statistics: Statistics = SPREAD) -> int:
    """Do what is missing, then show it; 1 when a run failed."""
    grid = read_grid(arguments.config, arguments, flags)
    statistics.check([*grid.rows])
    if grid.figure:
        figures.check(grid)
    if arguments.dry_run or arguments.launcher == "slurm":
        return hand_out(grid, arguments)
    failed = []
    if grid.tuned:
        failed += [cell for cell in runner.run_here(grid.tuned.trials, arguments.jobs) if not cell.has_diverged]
        grid = read_grid(arguments.config, arguments, flags)  # with the values that the trials have chosen
        print(text_tables.markdown(*trials.table(grid)))
    failed += runner.run_here(grid, arguments.jobs)
    diverged = [cell for cell in grid.settled if cell.has_diverged]
    for cell in diverged:
        say(f"diverged: {cell.name}, log: {cell.log}; delete its folder to try it again")
    for cell in (cut_off := [cell for cell in grid.settled if cell.is_cut_off]):
        name = cell.start and cell.start.name
        say(f"not run: {cell.name}, since {name}, which it starts from, diverged or was not run")
    failed = [cell for cell in failed if cell not in diverged and cell not in cut_off]
    for cell in failed:
        say(f"failed: {cell.name}, log: {cell.log}")
    waiting = report_waiting(grid)
    if failed:
        total = len(grid.cells) + (len(grid.tuned.trials.cells) if grid.tuned else 0)
        say(f"error: {len(failed)} of {total} runs failed; the same command tries them again")
    show_grid(grid, arguments.results_dir, statistics)
    return 1 if failed or diverged or waiting else 0


def hand_out(grid: Grid, arguments: Namespace) -> int:
    """Print the commands of what can run now, or submit it; what waits for trials is left to a later call."""
    parts = [part for part in (grid.tuned and grid.tuned.trials, grid) if part and runner.missing(part)]
    for part in parts or [grid]:
        if arguments.dry_run:
            print(runner.dry_run(part))
        else:
            print(slurm.run_slurm(part, arguments.jobs, arguments.slurm))
    report_waiting(grid)
    return 0


def report_waiting(grid: Grid) -> list[str]:
    """Say which places wait for trials."""
    lines = tuning.waiting(grid)
    for line in lines:
        say(f"waiting: {line}")
    return lines


def show_grid(grid: Grid, folder: Path, statistics: Statistics = SPREAD, begun: bool = False) -> Sheet:
    """Print and write the table; draw the figure where there is one, something to draw and something to draw with."""
    sheet = Sheet.of(grid, statistics)
    sheet = sheet.begun() if begun else sheet
    paths = tables.write(sheet, folder)
    print(paths[0].read_text())
    if grid.figure and figures.check(grid) and sheet.results:
        try:
            paths += figures.draw(sheet, folder)
        except MissingExtra as error:  # the table is what was asked for
            say(f"no figure: {error}")
    print(f"written: {', '.join(map(str, paths))}")
    return sheet


def show(arguments: Namespace, flags: list[str]) -> int:
    """A grid's table, or all runs below a folder."""
    if not arguments.config.is_dir():
        with archived(arguments.config, arguments):
            grid, statistics = read_grid(arguments.config, arguments, flags), statistics_of(arguments)
            statistics.check([*grid.rows])
            show_grid(grid, arguments.results_dir, statistics, arguments.begun)
        return 0
    check_no_grid_flags(arguments, flags)
    print(text_tables.markdown(tables.HEADER, tables.rows(results.collect(arguments.config))))
    return 0


def list_grids() -> None:
    """The names and titles of the grids that come with the package."""
    titles = {name: yaml_object(grid_file.place(Path(name))).get("title") for name in grid_file.names()}
    print(text_tables.markdown(("grid", "what it is"), [(name, str(title)) for name, title in titles.items()]))
    print("\n`glue-sparse table run GRID` runs one, `glue-sparse table show GRID` prints what is there; files are in "
          f"{grid_file.SHIPPED}")  # fmt: skip


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and do it."""
    arguments, flags = parser(prog).parse_known_args(argv)
    with one_sentence(arguments):
        if arguments.verb == "list":
            list_grids()
            return 0
        return run(arguments, flags) if arguments.verb == "run" else show(arguments, flags)
    return 1
