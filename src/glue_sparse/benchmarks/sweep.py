"""Tries on every architecture what has to hold for all: `python -m glue_sparse.benchmarks.sweep` prints a table."""

import logging
import platform
import tempfile
import time
import warnings
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn

from glue_sparse.benchmarks import architectures
from glue_sparse.core.active import attach, current_masks
from glue_sparse.core.batches import Batch, batch_size, evaluating, example
from glue_sparse.core.budgets import total
from glue_sparse.core.masks import Masks, select
from glue_sparse.core.parametrization import detach
from glue_sparse.core.params import trainable_names
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.scores.per_example import PerExample
from glue_sparse.scores.scores import noise
from glue_sparse.scores.sums import Sums
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.tables import markdown

_SPREAD = 1e-3
"""Allowed difference of scores, as a share of each entry; below 1e-7 of the model's largest score it is rounding."""


@dataclass(frozen=True)
class FisherFound:
    """How the Fisher of a model was computed, and whether it is that of single backward passes.

    Attributes:
        ways: parameters done by the rules, by `torch.func`, and one example at a time.
        wrong: parameters whose scores differ.
        seconds, seconds_singly: for all batches.
    """

    ways: tuple[int, int, int]
    wrong: tuple[str, ...]
    seconds: float
    seconds_singly: float


def fisher_of(name: str) -> FisherFound:
    """Compare the per-example rules of an architecture with single backward passes on two batches."""
    model, batches = architectures.build(name), architectures.batches_of(name)
    parameters = dict(model.named_parameters())
    with evaluating(model):
        started = time.perf_counter()
        right = _one_by_one(model, batches)
        seconds_singly = time.perf_counter() - started
        found = {key: torch.zeros_like(p) for key, p in parameters.items()}
        summed = PerExample(model, Sums(found), torch.square, lambda m, batch: [m(**batch)["loss"]])
        started = time.perf_counter()
        for batch in batches:
            summed.add(batch)
        seconds = time.perf_counter() - started
    top = max(float(score.max()) for score in right.values())
    wrong = [key for key in right if not torch.allclose(found[key], right[key], rtol=_SPREAD, atol=1e-7 * top)]
    ways = len(summed.ruled), len(summed.vectorised), len(summed.singly)
    return FisherFound(ways, tuple(wrong), seconds, seconds_singly)


def _one_by_one(model: nn.Module, batches: list[Batch]) -> dict[str, Tensor]:
    totals = {key: torch.zeros_like(p) for key, p in model.named_parameters()}
    for batch in batches:
        for i in range(batch_size(batch)):
            model.zero_grad()
            model(**example(batch, i))["loss"].backward()
            for key, p in model.named_parameters():
                if p.grad is not None:
                    totals[key] += p.grad**2
    model.zero_grad()
    return totals


@dataclass(frozen=True)
class TrainingFound:
    """What two steps with decay left of a model.

    Attributes:
        moved: inactive entries that changed; right is 0.
        still: whether no active entry changed; right is False.
        differs: tensors that the saved diff does not give back to the last bit.
    """

    moved: int
    still: bool
    differs: tuple[str, ...]


def training_of(name: str, density: float = 0.1) -> TrainingFound:
    """Attach random masks, train two steps with AdamW and decay, detach, and give the diff to a fresh model."""
    model, fresh, batches = architectures.build(name), architectures.build(name), architectures.batches_of(name)
    attach(model, _random_masks(model, density))
    masks = current_masks(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.1)
    for batch in batches:
        optimizer.zero_grad()
        model(**batch)["loss"].backward()
        optimizer.step()
    diff = SparseDiff.from_model(model)
    detach(model)
    after, before = model.state_dict(), fresh.state_dict()
    moved = sum(int((after[key] != before[key])[~mask].sum()) for key, mask in masks.items())
    still = not any((after[key] != before[key]).any() for key in masks)
    with tempfile.TemporaryDirectory() as folder:
        diff.save_pretrained(folder)
        SparseDiff.from_pretrained(folder).apply(fresh)
    applied = fresh.state_dict()
    return TrainingFound(moved, still, tuple(key for key in after if not torch.equal(after[key], applied[key])))


def _random_masks(model: nn.Module, density: float) -> Masks:
    names = trainable_names(model, ())
    scores = noise(model, names)
    return select(scores, total(density, sum(score.numel() for score in scores.values()), 0))


def main() -> None:
    """Print the table as markdown."""
    parser = Parser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only architectures whose names contain one of these")
    chosen = parser.parse_args().names
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    rows = []
    for name in architectures.names():
        if chosen and not any(part in name for part in chosen):
            continue
        fisher, training = fisher_of(name), training_of(name)
        is_right = not fisher.wrong and not training.moved and not training.still and not training.differs
        rows.append([name, *map(str, fisher.ways), f"{fisher.seconds:.2f}", f"{fisher.seconds_singly:.2f}",
                     "right" if is_right else f"WRONG: {fisher.wrong[:2]} {training}"])  # fmt: skip
        print(f"{name}: {rows[-1][-1]}", flush=True)
    print(f"\ntorch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}\n")
    header = ["architecture", "by rules", "torch.func", "singly", "seconds", "seconds, all singly", "found"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
