"""Loss over FLOPs of sparse models beside a dense family, and their best learning rates: for example

    glue-sparse pareto run --data_dir path/to/text --tasks tiny mini small --seeds 0
    glue-sparse pareto run --config dynsparse --data_dir path/to/text
    glue-sparse pareto show runs/pareto
    glue-sparse pareto show runs/pareto --with_head
    glue-sparse pareto show --published
    glue-sparse pareto lr runs/rates
    glue-sparse pareto lr --published

`run` does the missing runs of a grid, as `glue-sparse table` does, and shows its front. `show` compares every sparse
model with the dense front: `matched` is the loss of a dense model of equal FLOPs, the FLOPs ratio is against a dense
model of equal loss, and eps_critical, its inverse, says how many times as long a FLOP of the sparse model may take.
Dense models are joined by straight lines of log(loss) over log(FLOPs); nothing is said beyond the smallest and the
largest. FLOPs are those of the encoder by the formula of Dietrich et al. (2021, arXiv 2108.06277), or with --with_head
all products.

`lr` fits a cubic to the losses of each setting that was run at four learning rates or more, and fits its best rate over
sparsity (log rate = a s^2 + b s + c) and over the number N of active weights (log rate = a log N + b).

`--published` takes the paper's tables in the place of runs. Folders are searched for results.json. Written are
results/NAME.{md,csv,png,svg}. Other flags of `run` are those of `glue-sparse train`, for all runs.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.grid_flags import add_grid, add_grid_flags, add_run_flags, read_grid
from glue_sparse.cli.table import run_grid
from glue_sparse.records import results
from glue_sparse.records.results import Result
from glue_sparse.reports import dynsparse_tables, pareto, rate_sweeps
from glue_sparse.reports.figures import pareto as pareto_figures
from glue_sparse.reports.sheet import Sheet
from glue_sparse.writing import files as whole_files
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.tables import heading

CONFIG = Path("pareto")
PUBLISHED = "published: Dietrich et al. (2021)"


def parser(prog: str | None = None) -> Parser:
    """The command line."""
    top = Parser(prog, description=__doc__, passes_on=True)
    verbs = top.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="do the missing runs of a grid, and show", passes_on=True)
    add_grid(run, "--config", default=CONFIG, help="a grid with dense and sparse rows")
    add_run_flags(run)
    add_grid_flags(run)
    show = verbs.add_parser("show", help="sparse models beside the dense front")
    rates = verbs.add_parser("lr", help="best learning rates over sparsity and size")
    for verb in (run, show):
        verb.add_argument("--with_head", action="store_true", help="count all products, also those of the head")
    for verb in (show, rates):
        verb.add_argument("folders", nargs="*", type=Path, metavar="RUNS_FOLDER", help="folders with runs below them")
        verb.add_argument("--published", action="store_true", help="the paper's tables instead")
        verb.add_argument("--results_dir", type=Path, default=Path("results"), help="where files are written")
    for verb in (run, show, rates):
        verb.add_argument("--name", help="of the files; default: pareto_front, learning_rates, or published_...")
    return top


def collected(arguments: Namespace) -> list[Result]:
    """The runs below the folders that were given; ValueError where none is, or --published is there too."""
    if bool(arguments.folders) == arguments.published:
        raise ValueError("give folders of runs, or --published for the numbers of the paper")
    return [result for folder in arguments.folders for result in results.collect(folder)]


def show(arguments: Namespace) -> None:
    """Print and write the front of runs, or that of the paper."""
    found, notes = collected(arguments), []
    points = dynsparse_tables.points(arguments.with_head) if arguments.published else None
    if arguments.published and arguments.with_head:
        notes = [dynsparse_tables.HEAD_NOTE]
    write_front(arguments, found, points, notes)


def write_front(
    arguments: Namespace, found: list[Result], points: list[pareto.Point] | None = None, notes: list[str] | None = None
) -> None:
    """Table, CSV and figure of points, by default those of runs."""
    title, start = (PUBLISHED, "published_front") if points else (found[0].title if found else "", "pareto_front")
    points = points or pareto.of_runs(found, arguments.with_head)
    name = arguments.name or start + ("_with_head" if arguments.with_head else "")
    title += ", FLOPs of all products" if arguments.with_head else ", FLOPs of the encoder"
    text = f"{heading(title)}\n\n" + pareto.as_markdown(points, [*(notes or []), *_unequal(found)])
    paths = pareto_figures.front(points, arguments.results_dir, name, title)
    _write(arguments, name, text, pareto.as_csv(points), paths)


def _unequal(found: list[Result]) -> list[str]:
    """What to say where runs did not see equally much: then a front compares more than FLOPs of a sequence."""
    counted = [run.flops for run in found if "training_flops" in run.flops]
    seen = {round(flops["training_flops"] / flops["training_flops_per_example"]) for flops in counted}
    if len(seen) < 2:
        return []
    return [f"Not all runs saw equally many sequences: {min(seen):,} to {max(seen):,}. The paper's models all did."]


def rates(arguments: Namespace) -> None:
    """Print and write best learning rates and the fits through them."""
    found = collected(arguments)
    sweeps = dynsparse_tables.sweeps() if arguments.published else rate_sweeps.of_runs(found)
    title, start = (PUBLISHED, "published_") if arguments.published else (found[0].title, "")
    name = arguments.name or f"{start}learning_rates"
    text = f"{heading(f'Learning rates, {title}')}\n\n" + rate_sweeps.as_markdown(sweeps)
    paths = pareto_figures.rate_panels(sweeps, arguments.results_dir, name)
    _write(arguments, name, text, rate_sweeps.as_csv(sweeps), paths)


def _write(arguments: Namespace, name: str, text: str, lines: str, paths: list[Path]) -> None:
    folder = arguments.results_dir
    first, last = whole_files.write_texts({folder / f"{name}.md": text, folder / f"{name}.csv": lines})
    paths = [first, *paths, last]
    print(f"{text}\nwritten: {', '.join(map(str, paths))}")


def run(arguments: Namespace, flags: list[str]) -> int:
    """The grid, as `glue-sparse table run` does it, and its front; 1 when a run failed."""
    arguments.launcher = "local"
    status = run_grid(arguments, flags)
    if arguments.dry_run:
        return status
    sheet = Sheet.of(read_grid(arguments.config, arguments, flags))
    write_front(arguments, [*sheet.results.values()])
    return status


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and do it."""
    arguments, flags = parser(prog).parse_known_args(argv)
    with one_sentence(arguments):
        if arguments.verb == "run":
            return run(arguments, flags)
        show(arguments) if arguments.verb == "show" else rates(arguments)
    return 0
