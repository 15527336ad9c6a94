"""Which entries of one tensor to drop and to grow: scores, rules that combine them, and the presets SET, SNFS, RigL."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from glue_sparse.core import options, tiles
from glue_sparse.core.masks import select
from glue_sparse.core.options import Entrants
from glue_sparse.core.randomness import seeded
from glue_sparse.methods.schedules import Schedule
from glue_sparse.writing.words import check_one_of


@dataclass(frozen=True)
class Connections:
    """One tensor as scores see it at an update; all tensors have its shape and are not to be changed.

    Attributes:
        name: of the parameter.
        weight: current values; inactive entries hold zero.
        mask: bool, True = active.
        step: optimizer step, from 0.
        seed: of the run.
    """

    name: str
    weight: Tensor
    mask: Tensor
    step: int
    seed: int
    _gradient: Tensor | None = None
    _momentum: Tensor | None = None

    @property
    def gradient(self) -> Tensor:
        """Gradient of the loss with respect to the whole tensor, inactive entries included, float32.

        Raises:
            ValueError: the rule does not ask for gradients.
        """
        return self._given(self._gradient, "gradient", "at_updates")

    @property
    def momentum(self) -> Tensor:
        """Mean gradient over steps, exponentially weighted (0.9); raises ValueError as `gradient` does."""
        return self._given(self._momentum, "momentum", "always")

    def _given(self, tensor: Tensor | None, what: str, gradients: str) -> Tensor:
        if tensor is None:
            raise ValueError(f"a score reads the {what} of {self.name}: build its Rule with gradients={gradients!r}")
        return tensor

    def noise(self) -> Tensor:
        """Uniform noise in [0, 1) that depends on (seed, step, name) alone, so that all ranks draw alike."""
        generator = seeded(self.seed, "grow", self.step, self.name)
        return torch.rand(self.weight.shape, generator=generator).to(self.weight.device)


Score = Callable[[Connections], Tensor]
"""One number per entry, in the tensor's shape; the largest are kept, or grown."""


def weight_magnitude(param: Connections) -> Tensor:
    """|w|."""
    return param.weight.abs()


def random_score(param: Connections) -> Tensor:
    """Noise (SET)."""
    return param.noise()


def gradient_magnitude(param: Connections) -> Tensor:
    """|dL/dw| of this step (RigL)."""
    return param.gradient.abs()


def momentum_magnitude(param: Connections) -> Tensor:
    """|mean dL/dw| over steps (SNFS)."""
    return param.momentum.abs()


def mean_momentum(param: Connections) -> float:
    """A tensor's claim to freed entries: the mean |momentum| of its active ones (SNFS)."""
    return float(param.momentum.abs()[param.mask].mean())


@dataclass(frozen=True)
class Rule:
    """How active entries move during training.

    Attributes:
        grow: score of entries that are not kept; none for a mask that stays (static sparse training).
        keep: score of active entries; the lowest are dropped.
        gradients: of the whole tensor, for scores: `never`; `at_updates`, in the steps that move entries; or `always`,
            which also gives their mean over steps.
        when: `replace` the step, whose gradients then train nothing (RigL), or move entries `after_step`.
        redistribute: a tensor's claim to the entries that all tensors drop; without it each regrows its own.
        regrown: an entry dropped and grown in the same update may `keep` value and optimizer state, or `reset` them; or
            one just dropped is `never` grown.
        entrants: what mean squared gradients of new entries start from: the `mean` of the others', or `zero`.
        schedule: when, and how many.
        block_size: side of the square tiles that are dropped and grown as a whole.
        block_norm: what makes scores of entries the score of their tile, for `keep` and for `grow`.
    """

    grow: Score | None
    keep: Score = weight_magnitude
    gradients: Literal["never", "at_updates", "always"] = "never"
    when: Literal["replace", "after_step"] = "after_step"
    redistribute: Callable[[Connections], float] | None = None
    regrown: Literal["keep", "reset", "never"] = "keep"
    entrants: Entrants = "mean"
    schedule: Schedule = field(default_factory=Schedule)
    block_size: int = 1
    block_norm: options.Norm = "l1"

    def __post_init__(self):
        tiles.check_norm(self.block_norm)
        known = {"gradients": ("never", "at_updates", "always"), "when": ("replace", "after_step"),
                 "regrown": ("keep", "reset", "never"), "entrants": ("mean", "zero")}  # fmt: skip
        for name, values in known.items():
            check_one_of(name, getattr(self, name), values)

    @property
    def kind(self) -> Literal["static", "rigl", "snfs"]:
        """Whose formula gives the cost of training: dense gradients never, at updates, or always."""
        return {"never": "static", "at_updates": "rigl", "always": "snfs"}[self.gradients]  # type: ignore


STATIC = Rule(grow=None)
"""A sparse network whose mask stays."""
SET = Rule(random_score, schedule=Schedule(until=1.0))
"""Mocanu et al., 2018, arXiv 1707.04780. Theirs drops a constant share and draws new weights; ours start at zero."""
SNFS = Rule(
    momentum_magnitude, gradients="always", redistribute=mean_momentum,
    schedule=Schedule(until=1.0, drop_fraction=0.5),
)  # fmt: skip
"""Dettmers and Zettlemoyer, 2019, arXiv 1907.04840, with redistribution across tensors."""
RIGL = Rule(gradient_magnitude, gradients="at_updates", when="replace")
"""Evci et al., 2020, arXiv 1911.11134, algorithm 1."""
DYNSPARSE = Rule(
    random_score, regrown="never", entrants="zero",
    schedule=Schedule(until=1.0, drop_fraction=0.5, intervals=160),
)  # fmt: skip
"""Dietrich et al., 2021, arXiv 2108.06277, algorithm 1, with the settings tuned for single weights at 90 % sparsity."""
PRESETS = {"static": STATIC, "set": SET, "snfs": SNFS, "rigl": RIGL, "dynsparse": DYNSPARSE}


def num_dropped(num_active: int, fraction: float, block_size: int = 1) -> int:
    """Entries that a tensor drops: of entries the share rounded down, of tiles to the nearest; never the last one."""
    size = block_size**2
    num_units = num_active // size
    wanted = int(num_units * fraction) if block_size == 1 else int(num_units * fraction + 0.5)
    return size * max(0, min(wanted, num_units - 1))


def kept(param: Connections, rule: Rule, num_kept: int) -> Tensor:
    """Mask of the `num_kept` active entries with the largest scores; inactive ones are no candidates."""
    return _best(param, rule.keep, param.mask, num_kept, rule)


def grown(param: Connections, rule: Rule, stays: Tensor, num_grown: int) -> Tensor:
    """Mask of the `num_grown` entries with the largest scores among those that do not stay, or were not active."""
    assert rule.grow is not None
    return _best(param, rule.grow, ~(stays | param.mask if rule.regrown == "never" else stays), num_grown, rule)


def _best(param: Connections, score: Score, candidates: Tensor, count: int, rule: Rule) -> Tensor:
    found = score(param)
    if found.shape != param.weight.shape:
        raise ValueError(f"a score of {param.name} has shape {tuple(found.shape)}, not {tuple(param.weight.shape)}")
    pooled = tiles.pooled(found, rule.block_size, rule.block_norm)
    best = _largest(pooled, tiles.gathered(candidates, rule.block_size), count // rule.block_size**2, param.name)
    return tiles.spread(best, rule.block_size)


def _largest(scores: Tensor, candidates: Tensor, count: int, name: str) -> Tensor:
    mask = torch.zeros_like(candidates)
    mask[candidates] = select({name: scores[candidates]}, count)[name]
    return mask
