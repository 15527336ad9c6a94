"""Prune once, before training, and train what is left: essential sparsity, random pruning, N:M, lottery tickets."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import get_args

import torch
from torch import Tensor, nn

from glue_sparse.core import budgets
from glue_sparse.core.masks import Masks, Scores, select, select_in_groups
from glue_sparse.core.names import match
from glue_sparse.core.options import Distribution
from glue_sparse.core.parametrization import model_digest
from glue_sparse.core.params import body_names, encoder_matrices, head_names
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.methods.base import Batches, Combine, SparseMethod, alone
from glue_sparse.scores.activations import wanda
from glue_sparse.scores.scores import Computed, ScoreFunction, magnitude, noise, of_all_ranks
from glue_sparse.writing.words import check_one_of


class OneShot(SparseMethod):
    """Remove the least worthy weights of the pretrained model, then train the others (arXiv 2306.03805, section 3).

    What may be removed are the matrices inside the layers; all other tensors train whole.
    What is frozen is neither pruned nor trained.

    Args:
        score: (model, names, batches) -> one number per entry; by default the magnitude.
        sparsity: share of the entries of these matrices that becomes zero, in [0, 1).
        distribution: the best of all matrices together (`global`), of each matrix at the same sparsity (`uniform`) or
            at Erdos-Renyi densities (`erk`), or of each output's inputs (`row`).
        pattern: (kept, group): keep so many of every group of consecutive inputs, instead of a sparsity.
        tensors: shell patterns of the tensors to prune, instead of the matrices inside the layers.
        num_samples: training examples the score may use, over all ranks; 0 for a score that uses no data.
        earlier: a pruned run from the same base. Its values are the score, only what it kept may stay, and training
            starts from the base's values again: a round of a lottery ticket (iterative magnitude pruning with rewind).
    Raises:
        ValueError: sparsity outside [0, 1), an unknown distribution, or a pattern that keeps none or more than all.
    """

    inactive = "zero"
    # workers send what differs from the pretrained weights, and pruned weights differ too
    refuses_merging = "pruned models cannot train as workers that merge"

    def __init__(
        self,
        score: ScoreFunction = magnitude,
        *,
        sparsity: float = 0.5,
        distribution: Distribution = "global",
        pattern: tuple[int, int] | None = None,
        tensors: Sequence[str] = (),
        num_samples: int = 0,
        earlier: SparseDiff | None = None,
    ):
        budgets.check_sparsity(sparsity)
        if pattern and not 1 <= pattern[0] <= pattern[1]:
            raise ValueError(f"a pattern is kept:group with 1 <= kept <= group, not {pattern[0]}:{pattern[1]}")
        check_one_of("distribution", distribution, get_args(Distribution))
        self.score, self.sparsity, self.distribution, self.pattern = score, sparsity, distribution, pattern
        self.earlier = earlier
        if earlier is not None:
            self.score = partial(trained_magnitude, earlier=earlier)
        self.tensors, self.num_samples = tensors, num_samples
        self.needs_data = num_samples > 0

    def prepare(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone
    ) -> Masks:
        """See `SparseMethod.prepare`; ValueError where the model has no such tensors or a pattern does not fit."""
        axes = _that_train(model, input_axes(model, head, self.tensors))
        if self.needs_data:
            scores = of_all_ranks(self.score(model, tuple(axes), batches(self.num_samples)), combine)
        else:
            scores = self.score(model, tuple(axes), ())
        masks = self.masks(scores, {name: model.get_parameter(name).shape for name in axes}, axes)
        if self.earlier is not None:
            self._check_within(self.earlier, masks)
        return masks

    def _check_within(self, earlier: SparseDiff, masks: Masks) -> None:
        kept = earlier.own_masks()
        back = sum(int((mask & ~kept[name]).sum()) for name, mask in masks.items() if name in kept)
        if back:
            raise ValueError(
                f"sparsity {self.sparsity} ({self.distribution}) would bring back {back:,} weights that the round "
                f"before removed at {earlier.sparsity:.4g}: prune further, with the same distribution"
            )

    def masks(self, scores: Scores, shapes: dict[str, torch.Size], axes: dict[str, int]) -> Masks:
        """The entries to keep.

        Args:
            axes: tensor -> the axis of its inputs.
        """
        if self.pattern:
            kept, group = self.pattern
            return select_in_groups(scores, kept, group, axes)
        if self.distribution == "row":
            return self._rows(scores, shapes, axes)
        total = budgets.remaining(self.sparsity, sum(map(prod, shapes.values())))
        return select(scores, budgets.shared_out(shapes, total, self.distribution))

    def _rows(self, scores: Scores, shapes: dict[str, torch.Size], axes: dict[str, int]) -> Masks:
        masks = {}
        for name, axis in axes.items():
            inputs = shapes[name][axis]
            kept = budgets.remaining(self.sparsity, inputs)
            masks |= select_in_groups({name: scores[name]}, kept, inputs, axes)
        return masks


def by_criterion(
    criterion: str,
    *,
    sparsity: float = 0.5,
    distribution: Distribution | None = None,
    pattern: str | None = None,
    tensors: Sequence[str] = (),
    num_samples: int = 1024,
    seed: int = 0,
) -> OneShot:
    """One-shot pruning by a criterion's name: `magnitude`, `random`, or `wanda` (Sun et al., 2023).

    Args:
        distribution: by default that of the criterion's paper.
        pattern: KEPT:GROUP, instead of a sparsity.
        num_samples: training examples for wanda.
    Raises:
        ValueError: an unknown criterion, or as `OneShot`.
    """
    criteria: dict[str, tuple[ScoreFunction, Distribution]] = {
        "magnitude": (magnitude, "global"),
        "random": (partial(noise, seed=seed), "uniform"),
        "wanda": (wanda, "row"),
    }
    check_one_of("criterion", criterion, criteria)
    score, usual = criteria[criterion]
    return OneShot(
        score,
        sparsity=sparsity,
        distribution=distribution or usual,
        pattern=budgets.pattern_of(pattern) if pattern else None,
        tensors=tensors,
        num_samples=num_samples if criterion == "wanda" else 0,
    )


def input_axes(model: nn.Module, head: tuple[str, ...], tensors: Sequence[str] = ()) -> dict[str, int]:
    """The tensors to prune -> the axis of their inputs: the matrices inside the layers, or those that patterns name.

    Raises:
        ValueError: there are none, or a pattern matches nothing.
    """
    try:
        known = encoder_matrices(model, head)
    except ValueError as error:
        if not tensors:
            raise ValueError(f"{error}: choose the tensors to prune by `tensors`") from error
        known = {}
    if not tensors:
        return known
    return {name: known.get(name, -1) for name in match(body_names(model, head), tuple(tensors))}


def _that_train(model: nn.Module, axes: dict[str, int]) -> dict[str, int]:
    """The tensors that are not frozen: pruning would change a frozen one."""
    found = {name: axis for name, axis in axes.items() if model.get_parameter(name).requires_grad}
    if not found:
        raise ValueError("all tensors to prune are frozen: call requires_grad_(True) on those that may change, or name "
                         "others by `tensors`")  # fmt: skip
    return found


def trained_magnitude(
    model: nn.Module, names: tuple[str, ...], batches: object = (), *, earlier: SparseDiff
) -> Scores:
    """|w| as an earlier run from the same base left it, and -1 where that run had pruned: a lottery ticket's score.

    Raises:
        ValueError: the run started from another base.
    """
    if earlier.info.base_digest != model_digest(model, head_names(model)):
        raise ValueError(f"the earlier round started from {earlier.info.base_model}, and not from the model given now")
    return Computed(names, partial(_trained, model, earlier))


def _trained(model: nn.Module, earlier: SparseDiff, name: str) -> Tensor:
    if name in earlier.whole:
        return earlier.whole[name].abs().float()
    worth = torch.full(model.get_parameter(name).shape, -1.0)
    if name in earlier.indices:
        worth.view(-1)[earlier.indices[name].long()] = earlier.values[name].abs()
    return worth
