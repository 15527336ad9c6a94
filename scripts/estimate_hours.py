"""What a grid would cost on one GPU, by a formula and not by a measurement: for example

    python scripts/estimate_hours.py table_1 figure_2
    python scripts/estimate_hours.py essential_sparsity --model google-bert/bert-base-uncased

Hours are training examples x FLOPs of one / FLOPs per second. Examples come from the grid: runs, epochs, and the rows
of the official data sets. One BERT example costs what `costs/bert_flops.py` says of a dense encoder at `max_length`
tokens, one image three forward passes, since masks save no time. Left out are loading, Fisher passes and evaluations.
Arguments as of `glue-sparse table run`.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from glue_sparse.arguments.run import Arguments
from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.grid_flags import add_grid_flags, read_grid
from glue_sparse.costs.bert_flops import encoder_flops, head_flops
from glue_sparse.costs.flops import forward_flops
from glue_sparse.experiments import grid_file
from glue_sparse.models.bert_family import SIZES
from glue_sparse.models.names import is_resnet
from glue_sparse.models.vision import load_scratch
from glue_sparse.tasks.cifar10 import ROWS as CIFAR10
from glue_sparse.tasks.glue import GLUE
from glue_sparse.tasks.squad.task import ROWS as SQUAD
from glue_sparse.writing.tables import markdown
from glue_sparse.writing.words import check_one_of

PEAK, SHARE = 312e12, 0.4
"""FLOPs per second: bfloat16 peak of an A100, and the share of it that is assumed."""
ENCODERS = SIZES | {
    "minilm": (6, 384),
    "google-bert/bert-base-uncased": (12, 768),
    "google-bert/bert-large-cased-whole-word-masking": (24, 1024),
}
"""Model -> layers and width; the feed-forward part is four times as wide."""
ROWS = {**{name: task.rows["train"] for name, task in GLUE.items()}, "squad": SQUAD["train"],
        "cifar10": CIFAR10["train"]}  # fmt: skip
"""Task -> training examples of the official data set."""
GATES = 2.0
"""Learning gates takes up to twice as long for a batch (Guo, Rush and Kim, ICLR 2021 submission, section 6.1)."""


@cache
def flops_of_image(model: str) -> float:
    """Of one CIFAR-10 image, forward and backward."""
    network = load_scratch(f"{model}@0", [str(label) for label in range(10)])
    return 3 * forward_flops(network, {"pixel_values": torch.zeros(1, 3, 32, 32)}).dense


def flops_of_example(told: Arguments) -> float:
    """Of one training example, forward and backward, with all weights.

    Raises:
        ValueError: a model whose size is not in `ENCODERS`.
    """
    model = str(told.model.model)
    if is_resnet(model):
        return flops_of_image(model)
    check_one_of("model", model, ENCODERS)
    layers, width = ENCODERS[model]
    head = head_flops(width) if told.task.task == "masked_lm" else 0.0
    return encoder_flops(layers, width, length=told.task.max_length) + head


def examples_of(told: Arguments) -> float:
    """Training examples that a run sees; workers that merge see all of the data, each of them."""
    workers = told.merge.num_workers or 1
    if (steps := told.value("max_steps")) > 0:
        return workers * steps * told.value("per_device_train_batch_size")
    used = told.task.max_train_samples or ROWS[str(told.task.task)] - told.task.hold_out
    return workers * told.value("num_train_epochs") * used


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each grid."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("grids", type=Path, nargs="+", help="grids, for example table_1")
    add_grid_flags(parser)
    arguments, flags = parser.parse_known_args(argv)
    lines = []
    with one_sentence(arguments):
        for path in arguments.grids:
            seeds = arguments.seeds or grid_file.load(grid_file.place(path))["seeds"]
            # all seeds cost the same: one is read
            grid = read_grid(path, type(arguments)(**{**vars(arguments), "seeds": seeds[:1]}), flags)
            trials = grid.tuned.trials.cells if grid.tuned else ()
            cells = [(len(seeds), cell.arguments) for cell in grid.cells] + [(1, cell.arguments) for cell in trials]
            examples = sum(times * examples_of(told) for times, told in cells)
            flops = sum(times * examples_of(told) * flops_of_example(told) * _slower(told) for times, told in cells)
            hours = flops / (PEAK * SHARE) / 3600
            runs = str(sum(times for times, _ in cells))
            lines.append((path.stem, runs, f"{examples / 1e6:,.1f} M", f"{flops:.2e}", f"{hours:,.1f}"))
        print(markdown(("grid", "runs", "training examples", "FLOPs", "GPU hours"), lines))
        return 0
    return 1


def _slower(told: Arguments) -> float:
    return GATES if told.method.method == "diff_gates" else 1.0


if __name__ == "__main__":
    sys.exit(main())
