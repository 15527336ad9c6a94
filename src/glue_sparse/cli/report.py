"""Write one file of HTML about runs: tables, charts, where active entries lie, claims and commands: for example

    glue-sparse report runs --out report.html
    glue-sparse report docs/results/runs --out all.html --title "All runs"
    glue-sparse report runs/table_1 runs/scores docs/results/runs/dst.json

A place is a folder of runs (runs, runs/GRID or runs/GRID/MODEL), a file of finished runs as `glue-sparse results
collect` writes it, or a folder of such files. The file needs nothing beside it and no network, and prints as well as it
shows in a browser, light or dark. Drawing needs the extra: pip install "glue_sparse[report]".
"""

from collections.abc import Sequence
from pathlib import Path

from glue_sparse.cli import doing
from glue_sparse.writing.parser import Parser


def parser(prog: str | None = None) -> Parser:
    """The flags."""
    flags = Parser(prog, description=__doc__)
    flags.add_argument("places", nargs="+", type=Path, metavar="PLACE", help="folders of runs, or files of them")
    flags.add_argument("--out", type=Path, default=Path("report.html"), help="the file to write")
    flags.add_argument("--title", default="Sparse training: runs", help="what the page is called")
    flags.set_defaults(does="glue_sparse.cli.work.report:write")
    return flags


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and write."""
    return doing.run(parser(prog), argv)
