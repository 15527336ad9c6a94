"""The flag by which a sub-command that loads models may run code that comes with them."""

from argparse import ArgumentParser, Namespace
from contextlib import AbstractContextManager

from glue_sparse.models.strangers import trusted


def add_trust_flag(parser: ArgumentParser) -> None:
    """`--trust_remote_code true`, as `train` has it."""
    parser.add_argument(
        "--trust_remote_code", nargs="?", const="true", default="false", choices=("true", "false"),
        help="run code that comes with a model, which may do anything: read it first (default: false)",
    )  # fmt: skip


def as_told(arguments: Namespace) -> AbstractContextManager[None]:
    """Within the block, models are loaded as the flag says; commands without it run no such code."""
    return trusted(getattr(arguments, "trust_remote_code", "false") == "true")
