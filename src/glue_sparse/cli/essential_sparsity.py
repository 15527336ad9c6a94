"""Score over sparsity: run the grid, add points where the score drops, and compute the drop point: for example

    glue-sparse drop-point run --model minilm --data_dir path/to/glue --tasks mrpc rte --seeds 0 1
    glue-sparse drop-point run --tasks mrpc --seeds 0 1 --rows dense magnitude-0.2 magnitude-0.5
    glue-sparse drop-point show --model minilm --data_dir path/to/glue --tasks mrpc rte --seeds 0 1

`run` does the missing runs, then halves, --refine times, the step in which each method's mean score first falls more
than --eps below the dense one. Both verbs end with the table of drop points, all points as CSV, and the figure, in
results/NAME.{md,csv,png,svg}. Stopped, the same command goes on. Other flags are those of
`glue-sparse train`, for all runs.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from glue_sparse.analysis.drop_point import check_eps
from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.grid_flags import add_grid, add_grid_flags, add_run_flags
from glue_sparse.cli.numbers import add_number
from glue_sparse.experiments import grids, runner
from glue_sparse.experiments.cells import Cell, Grid
from glue_sparse.experiments.sweeps import row_name
from glue_sparse.reports import curves
from glue_sparse.reports.figures import drop_points as curve_figures
from glue_sparse.reports.sheet import Sheet
from glue_sparse.writing import files as whole_files
from glue_sparse.writing.bounds import NOT_NEGATIVE, POSITIVE
from glue_sparse.writing.parser import Parser

CONFIG = Path("essential_sparsity")


def parser(prog: str | None = None) -> Parser:
    """The command line."""
    top = Parser(prog, description=__doc__, passes_on=True)
    verbs = top.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="do the missing runs, refine, and show", passes_on=True)
    add_number(run, "--refine", kind=int, default=2, help="how often to halve the step around each drop point",
               bounds=NOT_NEGATIVE)  # fmt: skip
    add_number(run, "--least_step", kind=float, default=0.02, help="do not halve steps this small", bounds=POSITIVE)
    add_run_flags(run)
    show = verbs.add_parser("show", help="drop points, points and figure of the finished runs", passes_on=True)
    for verb in (run, show):
        add_grid(verb, "--config", default=CONFIG, help="a grid with a sweep over sparsity")
        add_number(verb, "--eps", kind=float, default=1.0, help="drop that counts, in points of a hundred",
                   bounds=POSITIVE)  # fmt: skip
        verb.add_argument("--relative", action="store_true", help="--eps is percent of the dense score instead")
        verb.add_argument("--name", help="of the files; default: GRID_drop_points")
        add_grid_flags(verb)
    return top


def read_grid(arguments: Namespace, flags: list[str], extra: bool) -> Grid:
    """The chosen part of the grid; with `extra`, also the points that earlier calls have added."""
    names = ("tasks", "rows", "seeds", "output_dir", "tune_values", "num_processes")
    chosen = {key: getattr(arguments, key) for key in names}
    grid = grids.read(arguments.config, **chosen, flags=flags)
    if not extra:
        return grid
    chosen_families = {grid.family[row] for row in grid.rows if row in grid.family}
    found = grids.further_values(arguments.config, grid)
    more = {family: values for family, values in found.items() if family in chosen_families}
    names = [row_name(family, value) for family, values in more.items() for value in values]
    chosen["rows"] = [*arguments.rows, *names] if arguments.rows else []
    return grids.read(arguments.config, **chosen, flags=flags, more=more)


def refine(arguments: Namespace, flags: list[str]) -> list[Cell]:
    """Run one more point around every drop point that is not known well enough; returns the runs that failed."""
    grid = read_grid(arguments, flags, extra=True)
    chained = {grid.family[cell.row] for cell in grid.cells if cell.start and cell.row in grid.family}
    found = curves.lines(Sheet.of(grid))
    wanted = curves.refinements(found, chained, arguments.eps, arguments.relative, arguments.least_step)
    failed = []
    for column, values in wanted.items():
        task = grid.at(next(iter(grid.rows)), column)[0].arguments.task.task
        rows = [row_name(family, value) for family, value in values.items()]
        more = {family: [value] for family, value in values.items()}
        part = grids.read(
            arguments.config, tasks=[str(task)], rows=rows, seeds=grid.seeds, output_dir=arguments.output_dir,
            flags=flags, more=more, num_processes=arguments.num_processes,
        )  # fmt: skip
        failed += runner.run_here(part, arguments.jobs)
    return failed


def show(arguments: Namespace, flags: list[str]) -> None:
    """Print and write drop points, points and figure."""
    grid = read_grid(arguments, flags, extra=True)
    found = curves.lines(Sheet.of(grid))
    name, folder = arguments.name or f"{grid.name}_drop_points", arguments.results_dir
    paths = curve_figures.draw(found, arguments.eps, arguments.relative, folder, name, grid.title)
    text = curves.as_markdown(found, arguments.eps, arguments.relative)
    paths += whole_files.write_texts({folder / f"{name}.md": text, folder / f"{name}.csv": curves.as_csv(found)})
    print(f"{text}\nwritten: {', '.join(map(str, paths))}")


def run(arguments: Namespace, flags: list[str]) -> int:
    """The grid, its refinements, and what they show; 1 when a run failed."""
    grid = read_grid(arguments, flags, extra=False)
    curves.check(grid)
    if arguments.dry_run:
        print(runner.dry_run(grid))
        return 0
    failed = runner.run_here(grid, arguments.jobs)
    for _ in range(arguments.refine):
        failed = failed or refine(arguments, flags)
    for cell in failed:
        print(f"failed: {cell.name}, log: {cell.log}", file=sys.stderr)
    show(arguments, flags)
    if failed:
        print(f"error: {len(failed)} runs failed; the same command tries them again", file=sys.stderr)
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and do it."""
    arguments, flags = parser(prog).parse_known_args(argv)
    with one_sentence(arguments):
        check_eps(arguments.eps)
        if not arguments.rows and arguments.config == CONFIG:
            arguments.rows = ["dense", "magnitude", "random"]  # the study; the others are there to be asked for
        if arguments.verb == "run":
            return run(arguments, flags)
        show(arguments, flags)
    return 0
