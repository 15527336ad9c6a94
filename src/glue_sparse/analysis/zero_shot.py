"""Prune a language model without training and measure its perplexity: criteria side by side over sparsities."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn
from tqdm.auto import tqdm

from glue_sparse.analysis.perplexity import Perplexity, Tokens, Window, check_length, perplexity
from glue_sparse.core.batches import Batch
from glue_sparse.core.budgets import check_sparsity
from glue_sparse.core.masks import Masks, num_active
from glue_sparse.core.options import Unlabelled
from glue_sparse.core.params import head_names
from glue_sparse.core.randomness import seeded
from glue_sparse.methods.one_shot import OneShot, by_criterion, input_axes
from glue_sparse.models.language_models import LanguageModel
from glue_sparse.writing.words import check_one_of

CRITERIA = get_args(Unlabelled)
DISTRIBUTIONS = {
    "global": "of all matrices together",
    "uniform": "of each matrix, the same share",
    "erk": "of each matrix, at Erdos-Renyi densities",
    "row": "of the inputs of each output",
    "groups": "of each group of inputs",
}
"""`Point.distribution` -> which weights are compared with each other."""
DENSE = "dense"
"""The criterion of the point in which nothing is pruned."""


@dataclass(frozen=True)
class Point:
    """One model of a sweep: how it was pruned, and its perplexity."""

    criterion: str
    asked: str
    """The sparsity asked for, or the pattern."""
    distribution: str
    """How the pruned weights are shared out: as `OneShot.distribution`, or `groups` for a pattern; none when dense."""
    sparsity: float
    """Pruned share of the matrices that may be pruned."""
    model_sparsity: float
    """Pruned share of the whole model."""
    found: Perplexity

    @property
    def is_dense(self) -> bool:
        """Whether nothing is pruned."""
        return self.criterion == DENSE


@dataclass(frozen=True)
class Sweep:
    """What to prune: each criterion at each sparsity, or with one pattern.

    Attributes:
        sparsities: shares of the matrices inside the layers, in [0, 1); the dense model is always measured, once.
        distribution: for all criteria; by default that of `--method one_shot`.
        pattern: KEPT:GROUP, instead of sparsities and a distribution.
    Raises:
        ValueError: an unknown criterion, a sparsity out of range, or a pattern beside what it replaces.
    """

    criteria: tuple[str, ...]
    sparsities: tuple[float, ...] = ()
    distribution: str | None = None
    pattern: str | None = None
    seed: int = 0

    def __post_init__(self):
        for criterion in self.criteria:
            check_one_of("criterion", criterion, CRITERIA)
        for sparsity in self.sparsities:
            check_sparsity(sparsity)
        if self.pattern is not None and (self.sparsities or self.distribution):
            raise ValueError("a pattern says how much is pruned and where: give no sparsities or distribution with it")
        self.methods("magnitude")  # a pattern that is none is refused here, before a model is loaded

    @property
    def needs_calibration(self) -> bool:
        """Whether a criterion looks at activations."""
        return "wanda" in self.criteria

    def methods(self, criterion: str) -> dict[str, OneShot]:
        """Sparsity or pattern as asked for -> how it is reached."""
        amounts: dict[str, dict[str, Any]] = {str(s): {"sparsity": s} for s in sorted(set(self.sparsities)) if s}
        if self.pattern is not None:
            amounts = {self.pattern: {"pattern": self.pattern}}
        how: dict[str, Any] = {"distribution": self.distribution, "seed": self.seed}
        return {asked: by_criterion(criterion, **how, **amount) for asked, amount in amounts.items()}


def calibration(
    language: LanguageModel, tokens: Tokens, num_samples: int, length: int, *, seed: int = 0, batch_size: int = 8
) -> list[Batch]:
    """Windows from random places of a text, for criteria that look at activations (Wanda, section 4.1, takes 128).

    Raises:
        ValueError: the text is shorter than a window, or there is to be no window.
    """
    check_length(language, length)
    room = tokens.room(length)
    if num_samples < 1 or not 1 <= room <= len(tokens.ids):
        raise ValueError(
            f"a calibration text of {len(tokens.ids):,} tokens cannot give {num_samples} windows of {length} tokens"
        )
    starts = torch.randint(len(tokens.ids) - room + 1, (num_samples,), generator=seeded(seed, "calibration"))
    pieces = torch.stack([tokens.framed(tokens.ids[start : start + room]) for start in starts.tolist()])
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in pieces.split(batch_size)]


def run(
    language: LanguageModel,
    windows: Sequence[Window],
    sweep: Sweep,
    batches: Sequence[Batch] = (),
    *,
    batch_size: int = 8,
    progress: bool = False,
) -> list[Point]:
    """Measure the dense model, then each criterion at each sparsity; afterwards the weights are as before, bit for bit.

    Args:
        windows, batches: the text to measure on, and calibration data for criteria that look at activations.
        progress: show a bar, and each perplexity when it is known.
    Raises:
        ValueError: no matrices inside layers, a pattern that does not divide, no calibration data where it is needed.
    """
    model, points = language.network, list[Point]()
    axes = input_axes(model, head_names(model))
    shapes = {name: model.get_parameter(name).shape for name in axes}

    def measure(masks: Masks, criterion: str, asked: str, distribution: str) -> None:
        description = f"{criterion} {asked}" if progress else None
        found = perplexity(language, windows, batch_size=batch_size, description=description)
        points.append(Point(criterion, asked, distribution, *_sparsities(model, axes, masks), found))
        if progress:
            tqdm.write(f"{description}: perplexity {found.perplexity:,.2f}")
    if sweep.needs_calibration and not batches:
        raise ValueError("wanda needs a calibration text")
    measure({}, DENSE, "0", "")
    with _restoring(model, tuple(axes)) as restore:
        for criterion in dict.fromkeys(sweep.criteria):
            scores = None
            for asked, method in sweep.methods(criterion).items():
                restore()  # before the choice, since scores may be computed from the weights whenever they are read
                scores = method.score(model, tuple(axes), batches) if scores is None else scores
                masks = method.masks(scores, shapes, axes)
                zero_out(model, masks)
                measure(masks, criterion, asked, "groups" if method.pattern else method.distribution)
    return points


def zero_out(model: nn.Module, masks: Masks) -> None:
    """Write zero into every entry that is not active, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            parameter = model.get_parameter(name)
            parameter.masked_fill_(~mask.to(parameter.device), 0)


@contextmanager
def _restoring(model: nn.Module, names: tuple[str, ...]) -> Iterator[Callable[[], None]]:
    """Hands out a function that puts back the weights of `names`, and calls it at the end; they are kept on the CPU."""
    kept = {name: model.get_parameter(name).detach().to("cpu", copy=True) for name in names}

    def restore() -> None:
        with torch.no_grad():
            for name, original in kept.items():
                model.get_parameter(name).copy_(original)

    try:
        yield restore
    finally:
        restore()


def _sparsities(model: nn.Module, axes: Mapping[str, int], masks: Masks) -> tuple[float, float]:
    """Pruned shares of the matrices that may be pruned, and of the whole model."""
    pruned = sum(mask.numel() for mask in masks.values()) - num_active(masks)
    matrices = sum(model.get_parameter(name).numel() for name in axes)
    return pruned / matrices, pruned / sum(parameter.numel() for parameter in model.parameters())
