"""Flags by which a table says what chance does to its scores."""

from argparse import ArgumentParser, Namespace

from glue_sparse.cli.numbers import add_number
from glue_sparse.reports.statistics import Statistics
from glue_sparse.writing.bounds import Bounds

NAMES = ("interval", "against")


def add_statistics_flags(parser: ArgumentParser) -> None:
    """`--interval PERCENT` and `--against ROW`."""
    add_number(
        parser, "--interval", kind=float, metavar="PERCENT", bounds=Bounds(0, 100, is_above=True, is_below=True),
        help="in place of standard deviations: half the width of this t interval of the mean, 95 for instance",
    )  # fmt: skip
    parser.add_argument(
        "--against", metavar="ROW",
        help="also each other row minus this one, paired by seed, with intervals and paired t tests (Holm-corrected)",
    )  # fmt: skip


def statistics_of(arguments: Namespace) -> Statistics:
    """What the flags ask for."""
    return Statistics(arguments.interval, arguments.against)
