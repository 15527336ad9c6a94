"""Count small weights over training, or compare the weights of two models: for example

    glue-sparse weights emergence minilm --tau 0.001 0.01
    glue-sparse weights emergence runs/mrpc_dense/checkpoint-* --tau 0.1 --relative --name mrpc_emergence
    glue-sparse weights emergence google/multiberts-seed_0-step_20k google/multiberts-seed_0-step_2000k
    glue-sparse weights histograms path/to/dino path/to/deit --tau 0.001 --name dino_and_deit

Weights are those of the matrices inside the numbered layers; embeddings, norms, biases, poolers and heads do not count.
A SOURCE is a folder with a Hugging Face model, a run or a checkpoint of this library, a folder of checkpoint-100 and so
on, an alias or a hub id. A folder with a model of its own, such as a finished run, is that one model: name its
checkpoints (RUN/checkpoint-*) to see them. Only safetensors files are read.
"""

from collections.abc import Sequence
from pathlib import Path

from glue_sparse.cli import doing
from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag
from glue_sparse.writing.bounds import POSITIVE
from glue_sparse.writing.parser import Parser

WORK = "glue_sparse.cli.work.weights"


def add_common_flags(verb: Parser, name: str) -> None:
    """What both verbs take."""
    add_number(verb, "--tau", kind=float, nargs="+", default=[0.001], bounds=POSITIVE,
               help="weights with |w| < TAU are small, 0.001 by default")  # fmt: skip
    verb.add_argument("--relative", action="store_true", help="TAU is in standard deviations of each matrix")
    add_trust_flag(verb)
    verb.add_argument("--results_dir", type=Path, default=Path("results"), help="where the files are written (results)")
    verb.add_argument("--name", default=name, help=f"of the files ({name})")


def parser(prog: str | None = None) -> Parser:
    """The command line."""
    top = Parser(prog, description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True)
    verb = doing.add_verb(verbs, "emergence", f"{WORK}:show_emergence", "share of small weights over checkpoints")
    verb.add_argument("sources", metavar="SOURCE", nargs="+", help="of one training, in any order: sorted by step")
    verb.add_argument("--revisions", nargs="+", default=(), help="of the hub ids, such as step1000 step2000")
    add_common_flags(verb, "emergence")
    verb = doing.add_verb(verbs, "histograms", f"{WORK}:show_histograms", "the weights of two models, layer by layer")
    verb.add_argument("one", metavar="ONE", help="folder, alias or hub id")
    verb.add_argument("other", metavar="OTHER", help="folder, alias or hub id")
    add_common_flags(verb, "histograms")
    return top


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and run one verb."""
    return doing.run(parser(prog), argv)
