"""What papers claim, and whether our runs bear it out: for example

    glue-sparse claims
    glue-sparse claims --claim fish-over-random-equal-rate fish-near-dense
    glue-sparse claims --runs runs/fish_rates --format md --out claims.md
    glue-sparse claims --claims mine.yaml

Each claim says which rows of which grid decide it, what is measured, and the least effect that matters. Its verdict is
computed from the runs that are there: pairs of runs of equal seeds, the mean over tasks for each seed, and the 95 % t
interval over seeds. `holds` needs three seeds or more. Where runs leave a claim undetermined, the table says how many
seeds it would take to tell an effect that matters from none (80 % power, with the spread seen).

Runs are folders of runs, and archives of finished grids as docs/results/runs has them; where both have a run, the
folder counts. docs/claims.md explains the verdicts and how to write claims of one's own.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from glue_sparse.cli.ending import one_sentence
from glue_sparse.records import archive, claims
from glue_sparse.reports.claims import table
from glue_sparse.reports.claims.verdicts import Decision, decided
from glue_sparse.writing.files import write_text
from glue_sparse.writing.parser import Parser

PLACES = (Path("docs/results/runs"), Path("runs"))
"""Where runs are looked for, archives first."""
_FORMATS: dict[str, Callable[[Sequence[Decision]], str]] = {
    "text": table.as_text, "md": table.as_markdown, "csv": table.as_csv, "json": table.as_json,
}  # fmt: skip


def parser(prog: str | None = None) -> Parser:
    """The command line."""
    found = Parser(prog, description=__doc__)
    # `dest` other than the flag, since messages name keys of a YAML that are called as these flags are
    found.add_argument(
        "--runs", nargs="+", type=Path, metavar="PLACE",
        help=f"folders of runs, and archives or folders of them; default: {' and '.join(map(str, PLACES))}",
    )  # fmt: skip
    found.add_argument("--claim", dest="ids", nargs="+", default=[], metavar="ID", help="only these claims")
    found.add_argument(
        "--claims", dest="files", nargs="+", type=Path, default=[claims.SHIPPED], metavar="FILE",
        help="YAML files of claims, or folders of them, in place of those that come with the package",
    )  # fmt: skip
    found.add_argument("--format", choices=[*_FORMATS], default="text", help="a table, a page, CSV or JSON")
    found.add_argument("--out", type=Path, metavar="FILE", help="write it there instead of printing it")
    return found


def decisions(arguments: Namespace, entries: Sequence[archive.Entry] | None = None) -> list[Decision]:
    """The verdicts that a command line asks for, of the runs that it names or of those at hand."""
    wanted = claims.chosen(claims.read(arguments.files), arguments.ids)
    if entries is None:
        entries = archive.read(arguments.runs or [place for place in PLACES if place.exists()])
    return decided(wanted, entries)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and do it."""
    arguments = parser(prog).parse_args(argv)
    with one_sentence(arguments):
        found = decisions(arguments)
        text = _FORMATS[arguments.format](found).rstrip("\n")
        if arguments.out is None:
            print(text)
        else:
            print(f"{table.summary(found)}\nwritten: {write_text(arguments.out, text + chr(10))}")
        return 0
    return 1
