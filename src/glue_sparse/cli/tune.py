"""Try values of one setting for one run, scored on held-out training data, and say which is best: for example

    glue-sparse tune --values learning_rate 3e-4 1e-3 3e-3 1e-2 --task tweets --model minilm --method fish
    glue-sparse tune --values density 0.001 0.01 --seeds 0 1 2 --task tweets --model minilm --method random

Each trial trains without `--hold_out` training examples and is scored on them by the task's own metric; validation and
test data are left alone. Other flags are those of `glue-sparse train`, for all trials. It can be stopped at any time:
the same command goes on, and shows what is finished without training again. At the end stands the command of the run
with the best value, which holds nothing out.

To choose a setting for each row and column of a grid, see `tune` in the help of `glue-sparse table`.
"""

import shlex
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.grid_flags import add_processes, add_run_flags, number
from glue_sparse.cli.numbers import add_number
from glue_sparse.experiments import grids, runner, tuning
from glue_sparse.experiments.told import settings_of
from glue_sparse.reports import tried
from glue_sparse.reports.sheet import Sheet
from glue_sparse.writing.bounds import SEED, Bounds
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.sentences import say
from glue_sparse.writing.tables import markdown
from glue_sparse.writing.words import command, shown

HOLD_OUT = 500


def parser(prog: str | None = None) -> Parser:
    """The command line."""
    top = Parser(prog, description=__doc__, passes_on=True)
    top.add_argument("--values", nargs="+", required=True, metavar=("SETTING", "VALUE"),
                     help="a flag of `glue-sparse train`, without dashes, and the numbers to try")  # fmt: skip
    add_number(top, "--hold_out", kind=int, default=HOLD_OUT, bounds=Bounds(1),
               help="training examples (of masked_lm: documents) to score on; default: %(default)s")  # fmt: skip
    add_number(top, "--seeds", nargs="+", kind=int, default=[0], bounds=SEED,
               help="of the trials; the best mean is chosen; default: 0")  # fmt: skip
    top.add_argument("--output_dir", type=Path, default=Path("runs", tuning.FOLDER), help="default: %(default)s")
    add_processes(top)
    add_run_flags(top)
    return top


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Do the trials that are missing, then show all; 1 when nothing is chosen."""
    arguments, flags = parser(prog).parse_known_args(argv)
    with one_sentence(arguments):
        return tune(arguments, flags)
    return 1


def tune(arguments: Namespace, flags: list[str]) -> int:
    """See `main`."""
    wanted = _wanted(arguments, flags)
    grid = grids.of_one_run(wanted, flags, arguments.seeds, arguments.output_dir, arguments.num_processes)
    if arguments.dry_run:
        print(runner.dry_run(grid))
        return 0
    failed = [cell for cell in runner.run_here(grid, arguments.jobs) if not cell.has_diverged]
    sheet = Sheet.of(grid)
    print("\n".join(["", markdown(*tried.table(sheet, wanted.setting)), ""]))
    for cell in failed:
        say(f"failed: {cell.name}, log: {cell.log}; the same command tries it again")
    if failed:
        return 1
    best = tried.best(sheet)
    if best is None:
        say(f"no {wanted.setting} is chosen, since all trials diverged: try other `values`")
        return 1
    value = f"{grid.rows[best][wanted.setting]:g}"
    print("\n".join(tried.captions(sheet, wanted.setting)))
    several = f"torchrun --nproc_per_node {arguments.num_processes} -m glue_sparse train"
    train = several if (arguments.num_processes or 1) > 1 else command("train")
    print(f"train with it, on all training data: {train} {shlex.join(flags)} --{wanted.setting} {value}")
    return 0


def _wanted(arguments: Namespace, flags: list[str]) -> tuning.Tune:
    """What to try; ValueError where it is no number, or flags decide it already."""
    setting, *words = arguments.values
    try:
        values = [number(word) for word in words]
    except ArgumentTypeError as error:
        raise ValueError(f"`values` takes a setting and numbers, as in learning_rate 1e-3 3e-3: {error}") from error
    if not values:
        raise ValueError(f"`values` {shown(setting)} names no number to try: learning_rate 1e-3 3e-3, for example")
    wanted = tuning.wanted({tuning.KEY: {setting: values, tuning.HOLD_OUT: arguments.hold_out}}, (), ())
    assert wanted
    given = settings_of(flags)
    if wanted.setting in given:
        raise ValueError(f"{given[wanted.setting]} is what `values` tries: leave it out")
    if "seed" in given:
        raise ValueError("the seeds of trials are those of `seeds`: give that in the place of `seed`")
    return wanted
