"""Prune a language model without any training and measure its perplexity on a text: for example

    glue-sparse zero-shot --model gpt2 --text_file valid.txt --criteria magnitude random --sparsities 0.1 0.3 0.5
    glue-sparse zero-shot --model gpt2 --text_file valid.txt --criteria wanda --calibration_file train.txt
    glue-sparse zero-shot --model bert-base-uncased --text_file valid.txt --pattern 2:4

Prunes the matrices inside the layers of a causal or masked language model, each time from the original weights, and
writes NAME.md, NAME.csv, NAME.png and NAME.svg. Criteria: magnitude |w|; wanda, |w| times the norm of the inputs that
the weight sees on the calibration text (Sun et al., 2023, arXiv 2306.11695); random.
"""

from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from glue_sparse.analysis import zero_shot
from glue_sparse.analysis.perplexity import MASKED_SHARE, Tokens, read_text, tokenize, windows
from glue_sparse.analysis.zero_shot import CRITERIA, DENSE, DISTRIBUTIONS, Point, Sweep
from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag, as_told
from glue_sparse.methods.one_shot import Distribution
from glue_sparse.models.language_models import Kind, LanguageModel, load_language_model
from glue_sparse.models.sources import DTYPES
from glue_sparse.reports import zero_shot as zero_shot_report
from glue_sparse.reports.figures import plots
from glue_sparse.writing import bounds
from glue_sparse.writing.parser import Parser

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def parser(prog: str | None = None) -> Parser:
    """The flags."""
    flags = Parser(prog, description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    flags.add_argument("--model", required=True, help="hub id or folder of a causal or masked language model")
    flags.add_argument("--text_file", type=Path, required=True, help="UTF-8 text to measure perplexity on")
    add_number(flags, "--sparsities", kind=float, nargs="+", bounds=bounds.BELOW_ONE, help="shares of the matrices "
               "to prune; 0, the dense model, is always measured; default: 0.1, 0.2, ... 0.9")  # fmt: skip
    flags.add_argument("--criteria", nargs="+", default=["magnitude"], metavar="CRITERION", help=", ".join(CRITERIA))
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
    flags.add_argument("--dtype", choices=tuple(DTYPES), default="float32", help="of the weights (default: float32)")
    add_trust_flag(flags)
    flags.add_argument("--results_dir", type=Path, default=Path("results"), help="where files are written")
    flags.add_argument("--name", default="zero_shot", help="of the files")
    return flags


def texts(arguments: Namespace, sweep: Sweep) -> tuple[str, str]:
    """The text to measure on, and that to calibrate on where a criterion needs one."""
    if sweep.needs_calibration != (arguments.calibration_file is not None):
        raise ValueError("--criteria wanda needs --calibration_file, and other criteria take none")
    text = read_text(arguments.text_file)
    calibration = read_text(arguments.calibration_file) if sweep.needs_calibration else ""
    if calibration == text:
        raise ValueError(f"{arguments.calibration_file} is the text to measure perplexity on: calibrate on another one")
    return text, calibration


def captions(arguments: Namespace, points: list[Point], length: int, tokens: Tokens, num_all: int) -> list[str]:
    """What a reader must know to read the table."""
    kind = points[0].found.kind
    text = f"{arguments.text_file.name}, {num_all:,} tokens"
    text += f", of which only the first {len(tokens.ids):,} are used" if len(tokens.ids) < num_all else ""
    counted = f"windows of {length} tokens, {points[0].found.num_tokens:,} tokens counted"
    if kind == "masked":
        counted += f": {MASKED_SHARE:.0%} of each window, all behind [MASK], drawn by seed {arguments.seed}"
    else:
        counted += f", stride {arguments.stride or length}"
    measured = "Pseudo-perplexity" if kind == "masked" else "Perplexity"
    lines = [
        f"{measured} of {arguments.model} ({kind}, {arguments.dtype}), pruned and not trained; lower is better.",
        f"Text: {text}; {counted}.",
    ]
    shared = dict.fromkeys(point.distribution for point in points if point.criterion != DENSE)
    if shared:
        lines.append(f"Pruned are the worst {'; '.join(f'{DISTRIBUTIONS[how]} ({how})' for how in shared)}.")
    if "row" in shared:
        lines.append("Rows are rounded each on its own, so their share differs a little; the CSV has it per criterion.")
    if arguments.calibration_file:
        source = arguments.calibration_file.name
        lines.append(f"Calibration: {arguments.num_samples} windows of {length} tokens from {source}.")
    if "random" in arguments.criteria:
        lines.append(f"Random: one draw, seed {arguments.seed}.")
    return lines


def measure(arguments: Namespace, sweep: Sweep) -> list[Path]:
    """Load, sweep and write."""
    plots.pyplot()  # refuses early where matplotlib is missing
    text, calibration_text = texts(arguments, sweep)
    model: LanguageModel = load_language_model(
        arguments.model, arguments.kind, dtype=arguments.dtype, device=arguments.device
    )
    length = min(512, model.max_length or 512) if arguments.length is None else arguments.length
    everything = tokenize(model, text)
    tokens = everything.first(arguments.max_tokens)
    cut = windows(model, tokens, length, stride=arguments.stride, seed=arguments.seed)
    batches = []
    if calibration_text:
        source = tokenize(model, calibration_text)
        batches = zero_shot.calibration(model, source, arguments.num_samples, length, seed=arguments.seed)
    points = zero_shot.run(model, cut, sweep, batches, batch_size=arguments.batch_size, progress=True)
    notes = captions(arguments, points, length, tokens, len(everything.ids))
    title = f"{Path(arguments.model).name} pruned without training, on {arguments.text_file.name}"
    return zero_shot_report.write(points, arguments.results_dir, arguments.name, title, notes)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and measure."""
    arguments = parser(prog).parse_args(argv)
    with one_sentence(arguments), as_told(arguments):
        sparsities = arguments.sparsities or (() if arguments.pattern else SPARSITIES)
        sweep = Sweep(
            tuple(arguments.criteria), tuple(sparsities), arguments.distribution, arguments.pattern, arguments.seed
        )
        written = measure(arguments, sweep)
        print(f"\n{written[0].read_text(encoding='utf-8')}")
        for path in written:
            print(f"written: {path}")
    return 0
