"""Choose the weights that pruning would keep, look at masks, and compare them: for example

    glue-sparse masks make minilm masks/minilm-0.3.safetensors --sparsity 0.3
    glue-sparse masks make minilm masks/minilm-2of4.safetensors --pattern 2:4
    glue-sparse masks show masks/minilm-0.3.safetensors
    glue-sparse masks compare runs/one runs/other masks/minilm-0.3.safetensors --name tickets

`make` prunes a pretrained model by its weights alone, prints which tensors that concerns, and writes the mask for
`glue-sparse train --method fixed_mask --mask_file`. Settings of fixed_mask are made for few weights; to train as
one_shot does, give its --learning_rate, --num_train_epochs and --per_device_train_batch_size (arguments/defaults.yaml).
Masks are those of a file, of a pruned model's folder, or of a run.
"""

from collections.abc import Sequence
from pathlib import Path

from glue_sparse.cli import doing
from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag
from glue_sparse.writing.bounds import BELOW_ONE, SEED
from glue_sparse.writing.files import check_there
from glue_sparse.writing.parser import Parser

WORK = "glue_sparse.cli.work.masks"


def parser(prog: str | None = None) -> Parser:
    """The command line."""
    top = Parser(prog, description=__doc__)
    top.set_defaults(checks={"masks": check_there})
    verbs = top.add_subparsers(dest="verb", required=True)
    verb = doing.add_verb(verbs, "make", f"{WORK}:make", "choose and write masks of a pretrained model")
    verb.add_argument("model", help="hub id, folder, or minilm")
    verb.add_argument("out", type=Path, help="the mask file to write")
    add_number(verb, "--sparsity", kind=float, bounds=BELOW_ONE,
               help="share of the matrices in the layers to prune, 0.5 by default")  # fmt: skip
    verb.add_argument("--criterion", choices=("magnitude", "random"), default="magnitude")
    verb.add_argument("--distribution", choices=("global", "uniform", "erk", "row"))
    verb.add_argument("--pattern", help="instead of a sparsity, KEPT:GROUP, for example 2:4")
    verb.add_argument("--tensors", nargs="+", default=[], help="shell patterns of the tensors to prune instead")
    add_number(verb, "--seed", kind=int, default=0, help="of random masks", bounds=SEED)
    add_trust_flag(verb)
    verb = doing.add_verb(verbs, "show", f"{WORK}:show", "density per kind of tensor and per layer")
    verb.add_argument("masks", help="mask file, folder of a pruned model, or of a run")
    verb = doing.add_verb(verbs, "compare", f"{WORK}:compare", "how far masks agree, beside chance")
    verb.add_argument("masks", nargs="+", help="mask files, folders of pruned models, or of runs")
    verb.add_argument("--by_layer", action="store_true", help="a line per layer, too")
    verb.add_argument("--results_dir", type=Path, default=Path("results"), help="where table and heat map are written")
    verb.add_argument("--name", default="similarity", help="of the files")
    return top


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and run one verb."""
    return doing.run(parser(prog), argv)
