"""What `glue-sparse zero-shot` does."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from glue_sparse.analysis import zero_shot
from glue_sparse.analysis.perplexity import MASKED_SHARE, Tokens, read_text, tokenize, windows
from glue_sparse.analysis.zero_shot import DENSE, DISTRIBUTIONS, Point, Sweep
from glue_sparse.models.language_models import LanguageModel, load_language_model
from glue_sparse.reports import zero_shot as zero_shot_report
from glue_sparse.reports.figures import plots

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


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


def run(**told: Any) -> None:
    """Measure, print the table and say what was written; the values are those of the flags."""
    arguments = Namespace(**told)
    sparsities = arguments.sparsities or (() if arguments.pattern else SPARSITIES)
    sweep = Sweep(
        tuple(arguments.criteria), tuple(sparsities), arguments.distribution, arguments.pattern, arguments.seed
    )
    written = measure(arguments, sweep)
    print(f"\n{written[0].read_text(encoding='utf-8')}")
    for path in written:
        print(f"written: {path}")
