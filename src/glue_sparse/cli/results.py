"""Keep results as small files, and write the pages that show them: for example

    glue-sparse results collect fish_rates
    glue-sparse results build
    glue-sparse results build docs/results/claims.md --check
    glue-sparse results build docs/scaling.md
    glue-sparse results build --list

`collect` writes the finished runs of grids, runs/GRID, to docs/results/runs/GRID.json, beside those that are there
already: settings, scores, costs, evaluations and some of the losses. `build` writes the blocks of the pages anew that
stand between <!-- results: COMMAND --> and <!-- end -->, from these files alone. COMMAND is one of

    table GRID ...     what `table show` prints, with its flags
    figure GRID ...    what `figure` draws, as PAGE_GRID.png and .svg
    claims ...         what `claims` says, with its flags
    where GRID ...     what `diff where` says of --rows: in which parts of the model their entries lie
    made GRID ...      dates, versions, models, seeds and hours of the runs
    scale ...          what `scale` says, with its flags
    hours              all grids: their runs, seeds, hours and dates
    pages              all pages, and what is generated in each

`--check` writes nothing and says which pages are not up to date; drawings themselves are not compared.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from glue_sparse.cli import blocks
from glue_sparse.cli.ending import one_sentence
from glue_sparse.records import archive
from glue_sparse.reports import pages
from glue_sparse.writing import tables
from glue_sparse.writing.fields import text_of
from glue_sparse.writing.files import write_text
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.sentences import say
from glue_sparse.writing.words import prefixed

RESULTS = Path("docs", "results")


def parser(prog: str | None = None) -> Parser:
    """The command line."""
    top = Parser(prog, description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True)
    collect = verbs.add_parser("collect", help="write the finished runs of grids to small files")
    collect.add_argument("grids", nargs="*", metavar="GRID", help="only these; by default all below --runs")
    collect.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs; default: runs")
    collect.add_argument("--to", type=Path, default=RESULTS / "runs", help="default: docs/results/runs")
    build = verbs.add_parser("build", help="write the generated parts of result pages")
    build.add_argument("only", nargs="*", type=Path, metavar="PAGE", help="only these; by default all")
    build.add_argument("--check", action="store_true", help="write nothing, and say which pages are not up to date")
    build.add_argument("--list", action="store_true", help="say what is generated in each page")
    build.add_argument("--pages", type=Path, default=RESULTS, help="folder of the pages; default: docs/results")
    build.add_argument(
        "--runs", type=Path, default=RESULTS / "runs", help="folder of GRID.json; default: docs/results/runs"
    )
    return top


def collect(names: Sequence[str], runs: Path, to: Path) -> list[Path]:
    """Write the finished runs of each grid below a folder to a file of its own, beside those it holds already.

    Raises:
        ValueError: there is no finished run.
    """
    found = archive.read([runs / name for name in names] or [runs])
    written = []
    for name in dict.fromkeys(one.whole_grid for one in found if one.grid):
        path = to / f"{name}.json"
        earlier = [path] if path.exists() else []
        all_runs = archive.read([*earlier, runs / name])
        archive.write([one for one in all_runs if one.whole_grid == name], path)
        print(f"written: {path}, {len(all_runs)} runs")
        written.append(path)
    if not written:
        raise ValueError(f"{runs} holds no runs of grids, GRID/MODEL/ROW/COLUMN/seedN: give their folder as `runs`")
    return written


def build(folder: Path, archives: Path, only: Sequence[Path] = (), check: bool = False) -> list[Path]:
    """Write the blocks of pages anew, or only look; returns the pages that were not up to date.

    Raises:
        ValueError: a block asks for what is not there, or a page is none.
    """
    stale, known = [], pages.statuses(folder)
    for page in only:
        if page not in known:
            with prefixed(str(page)):
                pages.status(text_of(page))
    with blocks.of(folder, archives, draws=not check) as rendering:
        for page in only or known:
            before = page.read_text()
            if (now := pages.built(before, rendering.renderer(page))) != before:
                stale.append(page)
                if not check:
                    write_text(page, now)
        for name, drawn in rendering.figures.items():
            if not (folder / name).exists():
                stale.append(folder / name)
            if not check:
                (folder / name).write_bytes(drawn)
    return stale


def _do(told: Namespace) -> int:
    if told.verb == "collect":
        collect(told.grids, told.runs, told.to)
        return 0
    if told.list:
        found = pages.statuses(told.pages)
        print(tables.markdown(("page", "what is generated"), [(str(path), text) for path, text in found.items()]))
        return 0
    stale = build(told.pages, told.runs, told.only, told.check)
    for path in stale:
        say(f"not up to date: {path}") if told.check else print(f"written: {path}")
    return int(told.check and bool(stale))


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and do it."""
    arguments = parser(prog).parse_args(argv)
    with one_sentence(Namespace(**{name: value for name, value in vars(arguments).items() if name != "only"})):
        return _do(arguments)
    return 1
