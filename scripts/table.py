"""Print a table of finished runs: for example

    python scripts/table.py show runs/quickstart
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from glue_sparse import results, tables
from glue_sparse.commands import one_sentence


def main() -> None:
    """Parse and print."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    show = verbs.add_parser("show", help="a markdown table of all runs below a folder")
    show.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    with one_sentence():
        print(tables.markdown(tables.HEADER, tables.rows(results.collect(arguments.folder))))


if __name__ == "__main__":
    main()
