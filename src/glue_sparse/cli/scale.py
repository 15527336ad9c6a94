"""Plan training on more GPUs than are here, by formulas alone: for example

    glue-sparse scale
    glue-sparse scale --models 8b --gpus 8 16 --density 0.001 0.005 --rank 8 64
    glue-sparse scale --models 70b --device h200 --tokens 8192 --gradient_accumulation_steps 8
    glue-sparse scale --models my_shapes.yaml --device my_gpu.yaml --format csv

Nothing is measured, and all that it prints is labelled SIMULATED: memory of a GPU, bytes that it sends and seconds of
an optimizer step under FSDP2, for full fine-tuning, LoRA, and active entries (a FISH mask of 0.5 %, for example). A
configuration that no GPU can hold "does not fit". Under the tables stand the assumptions and the source of each
constant; docs/scaling.md has the formulas. A YAML of shapes or constants is like those of the package,
`glue_sparse/scaling/shapes.yaml` and `devices.yaml`.
"""

from collections.abc import Sequence
from typing import get_args

from glue_sparse.cli import doing
from glue_sparse.cli.numbers import add_number
from glue_sparse.core.options import Dtype
from glue_sparse.writing.bounds import COUNT, DENSITY, NOT_NEGATIVE
from glue_sparse.writing.parser import Parser


def parser(prog: str | None = None) -> Parser:
    """The flags."""
    flags = Parser(prog, description=__doc__)
    flags.add_argument("--models", nargs="+", default=["1.3b", "8b", "70b"], metavar="MODEL",
                       help="1.3b, 8b, 70b (the default: all), and YAML files of shapes")  # fmt: skip
    add_number(flags, "--gpus", kind=int, nargs="+", default=[1, 8, 64, 512], help="default: 1 8 64 512", bounds=COUNT)
    add_number(flags, "--density", kind=float, nargs="+", default=[0.005], help="active shares, default: 0.005",
               bounds=DENSITY)  # fmt: skip
    add_number(flags, "--rank", kind=int, nargs="+", default=[16], help="ranks of LoRA, default: 16", bounds=COUNT)
    add_number(flags, "--tokens", kind=int, default=4096, help="of a GPU in a forward pass, default: 4096",
               bounds=COUNT)  # fmt: skip
    add_number(flags, "--length", kind=int, default=2048, help="tokens of a sequence, default: 2048", bounds=COUNT)
    add_number(flags, "--gradient_accumulation_steps", kind=int, default=1, bounds=COUNT,
               help="forward and backward passes in an optimizer step, default: 1")  # fmt: skip
    flags.add_argument("--dtype", choices=get_args(Dtype), default="bfloat16",
                       help="of products and frozen weights (bfloat16)")  # fmt: skip
    flags.add_argument("--keep_gathered", action="store_true",
                       help="layers are not given up after their forward pass (reshard_after_forward off)")  # fmt: skip
    flags.add_argument("--device", default="h100", help="h100 (the default), h200, or a YAML file of constants")
    add_number(flags, "--compute_share", kind=float, help="share of the peak FLOP/s, for the assumed one",
               bounds=DENSITY)  # fmt: skip
    add_number(flags, "--link_share", kind=float, help="share of the bandwidths, for the assumed one", bounds=DENSITY)
    add_number(flags, "--memory_share", kind=float, help="share of the memory, for the assumed one", bounds=DENSITY)
    add_number(flags, "--call_seconds", kind=float, bounds=NOT_NEGATIVE,
               help="of a collective beside its bytes, each time its ranks double, for the assumed ones")  # fmt: skip
    flags.add_argument("--format", choices=("md", "csv", "json"), default="md", help="default: md")
    flags.set_defaults(does="glue_sparse.cli.work.scale:run")
    return flags


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and print."""
    return doing.run(parser(prog), argv)
