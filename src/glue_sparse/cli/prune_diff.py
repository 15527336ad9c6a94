"""Keep the largest changes of a run's diff and drop the rest (diff pruning, stage 2): for example

    glue-sparse diff prune runs/mrpc_gates runs/mrpc_pruned --density 0.005
    glue-sparse train --task mrpc --model minilm --method fixed_mask --start_diff runs/mrpc_pruned

IN is a finished run of any method, usually `--method diff_gates` or, for the non-adaptive baseline, `--method dense`.
OUT gets sparse_diff.safetensors: exactly density * (all weights) entries, the head counted among them and kept whole.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from glue_sparse.cli import doing
from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag
from glue_sparse.writing.bounds import DENSITY, NOT_NEGATIVE
from glue_sparse.writing.files import check_there
from glue_sparse.writing.parser import Parser


def add_flags(parser: ArgumentParser) -> None:
    """What it takes, and what does it."""
    parser.add_argument("source", metavar="IN", help="folder of a finished run, a diff, or a hub repository")
    parser.add_argument("folder", metavar="OUT", type=Path, help="where to write the pruned diff")
    how = parser.add_mutually_exclusive_group(required=True)
    add_number(how, "--density", "--target_sparsity", kind=float, help="share of all weights to keep, head included",
               bounds=DENSITY)  # fmt: skip
    add_number(how, "--threshold", kind=float, help="keep every change above this instead", bounds=NOT_NEGATIVE)
    parser.add_argument("--model", help="the base, where it is not what the diff names")
    add_trust_flag(parser)
    parser.set_defaults(does="glue_sparse.cli.work.prune_diff:run", checks={"source": check_there})


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and prune."""
    parser = Parser(prog, description=__doc__)
    add_flags(parser)
    return doing.run(parser, argv)


if __name__ == "__main__":  # as the runs of a grid are started
    sys.exit(main())
