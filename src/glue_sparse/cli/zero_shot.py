"""Prune a language model without any training and measure its perplexity on a text: for example

    glue-sparse zero-shot --model gpt2 --text_file valid.txt --criteria magnitude random --sparsities 0.1 0.3 0.5
    glue-sparse zero-shot --model gpt2 --text_file valid.txt --criteria wanda --calibration_file train.txt
    glue-sparse zero-shot --model bert-base-uncased --text_file valid.txt --pattern 2:4

Prunes the matrices inside the layers of a causal or masked language model, each time from the original weights, and
writes NAME.md, NAME.csv, NAME.png and NAME.svg. Criteria: magnitude |w|; wanda, |w| times the norm of the inputs that
the weight sees on the calibration text (Sun et al., 2023, arXiv 2306.11695); random.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from glue_sparse.cli import doing
from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag
from glue_sparse.core.options import Distribution, Dtype, Kind, Unlabelled
from glue_sparse.writing import bounds
from glue_sparse.writing.characters import check_file
from glue_sparse.writing.parser import Parser


def parser(prog: str | None = None) -> Parser:
    """The flags."""
    flags = Parser(prog, description=__doc__)
    flags.add_argument("--model", required=True, help="hub id or folder of a causal or masked language model")
    flags.add_argument("--text_file", type=Path, required=True, help="UTF-8 text to measure perplexity on")
    add_number(flags, "--sparsities", kind=float, nargs="+", bounds=bounds.BELOW_ONE, help="shares of the matrices "
               "to prune; 0, the dense model, is always measured; default: 0.1, 0.2, ... 0.9")  # fmt: skip
    flags.add_argument("--criteria", nargs="+", default=["magnitude"], metavar="CRITERION",
                       help=", ".join(get_args(Unlabelled)))  # fmt: skip
    flags.add_argument("--distribution", choices=get_args(Distribution), help="the best of all matrices together, of "
                       "each at the same sparsity, of each at Erdos-Renyi densities, or of the inputs of each output "
                       "(default: global for magnitude, row for wanda, uniform for random)")  # fmt: skip
    flags.add_argument("--pattern", help="instead of sparsities, KEPT:GROUP: 2:4 keeps 2 of every 4 consecutive inputs")
    flags.add_argument("--calibration_file", type=Path, help="UTF-8 text for wanda, another one than --text_file")
    count: dict[str, Any] = {"kind": int, "bounds": bounds.COUNT}
    add_number(flags, "--num_samples", default=128, help="calibration windows, 128 by default", **count)
    add_number(flags, "--length", help="tokens in a window; default: 512, or what the model can take", **count)
    add_number(flags, "--stride", help="causal: a window begins every so many tokens and only new tokens count, so "
               "smaller strides give more context and take longer; default: --length", **count)  # fmt: skip
    add_number(flags, "--max_tokens", help="measure on the first so many tokens only", **count)
    add_number(flags, "--batch_size", default=8, help="windows at once, 8 by default", **count)
    flags.add_argument("--kind", choices=get_args(Kind), help="of model (default: what its config.json says)")
    add_number(flags, "--seed", kind=int, default=0, help="for random, calibration windows and masked tokens",
               bounds=bounds.SEED)  # fmt: skip
    flags.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: an accelerator, or the cpu)")
    flags.add_argument("--dtype", choices=get_args(Dtype), default="float32", help="of the weights (default: float32)")
    add_trust_flag(flags)
    flags.add_argument("--results_dir", type=Path, default=Path("results"), help="where files are written")
    flags.add_argument("--name", default="zero_shot", help="of the files")
    checks = {"text_file": check_file, "calibration_file": check_file}
    flags.set_defaults(does="glue_sparse.cli.work.zero_shot:run", checks=checks)
    return flags


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and measure."""
    return doing.run(parser(prog), argv)
