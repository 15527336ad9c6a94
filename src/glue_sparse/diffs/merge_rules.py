"""By which rule the changes of several diffs become one change: each rule says what every diff counts for, and where.

A merged entry is `sum_i c_i * v_i + (1 - sum_i c_i) * base`: arithmetic on changes `v_i - base`, written so that an
entry of which one diff decides alone (`c_i` = 1) keeps its bits.

* `sum`: c_i = w_i, task arithmetic (Ilharco et al., 2023, arXiv 2212.04089).
* `mean`: c_i = w_i / sum of all w, over all diffs, those without the entry too, as when whole models are averaged
  (Wortsman et al., 2022, arXiv 2203.05482): an entry that one of four diffs has moves a quarter of its way.
* `ties`: each diff is trimmed to its largest changes; of the entries left, the sign with the larger sum of changes is
  elected, and c_i = w_i / m for the m diffs whose change has it (Yadav et al., 2023, arXiv 2306.01708). Weights have no
  vote, as in peft.
* `dare`: changes are dropped with probability 1 - density, and c_i = w_i / density (Yu et al., 2024, arXiv 2311.03099).
* `priority`: c_i = 1 for the first diff that has the entry.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glue_sparse.core.masks import select
from glue_sparse.core.options import MergeRule
from glue_sparse.core.randomness import seeded


@dataclass(frozen=True)
class Stack:
    """The same k entries of n diffs.

    Attributes:
        values: [n, k] float64; anything where nothing is held.
        held: [n, k] bool: whether a diff has that entry, and it was neither trimmed nor dropped.
        base: [k] float64; none where no base is known.
        weights: [n] float64.
        density: share that was kept of each diff.
    """

    values: Tensor
    held: Tensor
    base: Tensor | None
    weights: Tensor
    density: float


def _sum(stack: Stack) -> Tensor:
    return stack.weights[:, None] * stack.held


def _mean(stack: Stack) -> Tensor:
    return (stack.weights / stack.weights.sum())[:, None] * stack.held


def _dare(stack: Stack) -> Tensor:
    return stack.weights[:, None] / stack.density * stack.held


def _ties(stack: Stack) -> Tensor:
    """Signs are elected by the sum of changes, of equal ones the positive; then the mean of those that agree."""
    assert stack.base is not None
    changes = (stack.values - stack.base) * stack.held
    elected = torch.where(changes.sum(0) >= 0, 1.0, -1.0)
    agrees = changes.sign() == elected
    return stack.weights[:, None] * agrees / agrees.sum(0).clamp(min=1)


def _priority(stack: Stack) -> Tensor:
    return (stack.held & (stack.held.cumsum(0) == 1)).double()


@dataclass(frozen=True)
class Rule:
    """One way to merge.

    Attributes:
        coefficients: what each diff counts for, [n, k] float64.
        needs_base: whether the base's values decide anything.
        takes_weights: whether diffs may count for more or less.
        takes_density: whether only a share of each diff's entries may be kept.
    """

    coefficients: Callable[[Stack], Tensor]
    needs_base: bool = True
    takes_weights: bool = True
    takes_density: bool = False


RULES: dict[MergeRule, Rule] = {
    "sum": Rule(_sum),
    "mean": Rule(_mean),
    "ties": Rule(_ties, takes_density=True),
    "dare": Rule(_dare, takes_density=True),
    "priority": Rule(_priority, needs_base=False, takes_weights=False),
}


def combined(stack: Stack, rule: Rule) -> Tensor:
    """[k] float64, the merged entries; of one that nobody changes the base's value."""
    coefficients = rule.coefficients(stack)
    total = torch.full_like(coefficients[0], -0.0)  # what adds nothing to -0.0 either
    for coefficient, values in zip(coefficients, stack.values, strict=True):
        total = total + _times(coefficient, values)
    if stack.base is None:
        return total
    return total + _times(1 - coefficients.sum(0), stack.base)


def _times(coefficient: Tensor, values: Tensor) -> Tensor:
    return torch.where(coefficient == 0, -0.0, coefficient * values)


Changes = Mapping[str, Tensor]
"""Tensor -> [k] changes of one diff."""
Kept = dict[str, Tensor]
"""Tensor -> [k] bool, which of them are kept."""


def trimmed(changes: Changes, density: float) -> Kept:
    """The largest changes of one diff, `int(density * k)` of all its k together; of equal ones the earlier (TIES)."""
    sizes = {name: change.abs().float() for name, change in changes.items()}
    chosen = select(sizes, int(density * sum(size.numel() for size in sizes.values())))
    return {name: chosen[name] for name in sizes}


def dropped(sizes: Mapping[str, int], density: float, seed: int, place: int) -> Kept:
    """Each entry of one diff is kept with probability `density`, by (seed, tensor, place of the diff) alone (DARE)."""
    return {name: torch.rand(size, generator=seeded(seed, "dare", name, place)) < density
            for name, size in sizes.items()}  # fmt: skip


def check_weights(weights: Sequence[float] | None, count: int, how: MergeRule) -> tuple[float, ...]:
    """One weight per diff, by default 1; ValueError for what a rule cannot use."""
    if weights is None:
        return (1.0,) * count
    if not RULES[how].takes_weights:
        raise ValueError(f"`how` {how} takes no `weights`: the order of the diffs decides")
    if len(weights) != count:
        raise ValueError(f"there are {len(weights)} `weights` for {count} diffs: give one for each")
    if not all(map(torch.isfinite, map(torch.tensor, weights))):
        raise ValueError("`weights` must be finite numbers")
    if how == "mean" and sum(weights) == 0:
        raise ValueError("`weights` of a mean must not add up to 0")
    if how == "ties" and min(weights) < 0:
        raise ValueError("`weights` of ties must not be negative: `negate` the diff that is to be taken away")
    return tuple(map(float, weights))


def check_density(density: float | None, how: MergeRule) -> float:
    """The share to keep, by default all; ValueError where a rule has no use for one, or needs one."""
    if density is None:
        if how == "dare":
            raise ValueError("`how` dare needs `density`, the share of each diff's entries that is kept")
        return 1.0
    if not RULES[how].takes_density:
        raise ValueError(f"`density` has no effect with `how` {how}: it is for ties and dare")
    if not 0 < density <= 1:
        raise ValueError(f"`density` must be in (0, 1], got {density}")
    return float(density)
