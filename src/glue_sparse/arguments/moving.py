"""Flags of networks that are sparse from the start: when weights move, tiles, first weights, regularization."""

from dataclasses import dataclass
from typing import Literal

from glue_sparse.arguments.flags import arg
from glue_sparse.core.options import Initial, Norm

SCORED = ("fish", "random", "magnitude", "score")
"""Methods whose entries are the best by a score."""
MOVING = ("set", "snfs", "rigl", "dynsparse")
"""Methods whose weights move."""
SPARSE = ("static", *MOVING)
"""Methods of networks that are sparse from the start."""


@dataclass
class MovingArguments:
    """Networks that are sparse from the start: static, set, snfs, rigl, dynsparse, and alternate."""

    block_size: int = arg(
        1, "Side of the square tiles of weights that are active as a whole; has to divide every sparse matrix.",
        methods=(*SPARSE, "alternate", "fixed_mask"), least=1,
    )  # fmt: skip
    block_norm: Norm = arg(
        "l1", "For weights that move: norm of a tile, by which the smallest are dropped.",
        methods=MOVING, rare=True, needs={"block_size": ()},
    )  # fmt: skip
    grow: Literal["random", "gradient"] | None = arg(
        None, "For dynsparse: tiles grow at random (default), or where the gradient is largest.",
        methods=("dynsparse",), rare=True,
    )  # fmt: skip
    num_updates: int | None = arg(
        None,
        "For weights that move: cut the run into so many intervals, with an update after each but the last, instead "
        "of --update_every. Default for dynsparse: 160.",
        methods=MOVING, least=1,
    )  # fmt: skip
    update_every: str | None = arg(
        None,
        "Steps between updates of the active entries, below 1 a fraction of the run, or `epoch`. For set, snfs, rigl: "
        "default 100. For fish, random, magnitude and score: choose the mask anew so often; default never.",
        methods=(*SCORED, *MOVING),
    )
    choose_after: float = arg(
        0.0,
        "For fish, random, magnitude and score: train so many steps, below 1 a fraction of the run, with the mask "
        "chosen at the start, then choose for good; weights that leave the mask get their first value back. 0: choose "
        "at the start alone.",
        methods=SCORED, rare=True, least=0,
    )  # fmt: skip
    update_until: float | None = arg(
        None,
        "For weights that move: no update at this step or later; up to 1, a fraction of the run. Default: 1; rigl "
        "0.75.",
        methods=MOVING, rare=True, above=0,
    )  # fmt: skip
    drop_fraction: float | None = arg(
        None,
        "For weights that move: share of the active weights that the first update replaces. Default: 0.3; snfs and "
        "dynsparse 0.5.",
        methods=MOVING, least=0, most=1,
    )  # fmt: skip
    drop_schedule: Literal["constant", "cosine", "linear"] | None = arg(
        None, "For weights that move: how this share falls to zero until the last update. Default: cosine.",
        methods=MOVING, rare=True,
    )  # fmt: skip
    update_rule: Literal["replace", "after_step"] | None = arg(
        None,
        "For weights that move: an update takes the place of an optimizer step (default for rigl) or follows one.",
        methods=MOVING, rare=True,
    )  # fmt: skip
    redistribute: bool | None = arg(
        None, "For snfs: freed weights go to the tensors with the largest mean momentum (default), or stay in theirs.",
        methods=("snfs",), rare=True,
    )  # fmt: skip
    regrown: Literal["keep", "reset", "never"] | None = arg(
        None,
        "For weights that move: a weight dropped and grown in one update keeps its value (default) or starts at zero, "
        "or one just dropped is not grown (default for dynsparse).",
        methods=MOVING, rare=True,
    )  # fmt: skip
    start_mask: Literal["magnitude", "random"] | None = arg(
        None,
        "For sparse starts: the first mask has each tensor's largest weights (default for a pretrained model) or "
        "random ones (default for random weights).",
        methods=SPARSE, rare=True,
    )  # fmt: skip
    variance: Literal["fan_in", "fan_out"] | None = arg(
        None,
        "For sparse starts: rescale the weights that are left so that outputs (fan_in) or gradients (fan_out) vary as "
        "in the dense network; for random weights.",
        methods=SPARSE, rare=True,
    )  # fmt: skip
    erk_power: float = arg(
        1.0, "For sparse starts: power of the formula of er and erk; 0 is uniform.",
        methods=SPARSE, rare=True, least=0, most=10, needs={"distribution": ("er", "erk")},
    )  # fmt: skip
    tensor_density: list[str] = arg(
        [], "For sparse starts: PATTERN=DENSITY for tensors that stand apart, '*.stem.*=1'.",
        methods=SPARSE, rare=True,
    )  # fmt: skip
    entrants: Literal["mean", "zero"] | None = arg(
        None,
        "For weights that move and alternate: Adam's mean squared gradient of a new weight starts at the mean of the "
        "others' (default) or at zero (default of dynsparse).",
        methods=(*MOVING, "alternate"), rare=True,
    )  # fmt: skip
    weight_init: Initial | None = arg(
        None, "Draw the sparse matrices of a random network anew, from this distribution. Default: as the model does.",
        methods=SPARSE, rare=True,
    )  # fmt: skip
    group_lasso: float = arg(
        0.0, "Strength of the Group Lasso, which shrinks tiles as a whole, as weight decay apart from the gradient.",
        methods=SPARSE, rare=True, least=0,
    )  # fmt: skip
    sparse_weight_decay: float | None = arg(
        None, "Weight decay of the sparse matrices alone, in the place of --weight_decay, which holds for the others.",
        methods=SPARSE, rare=True, least=0,
    )  # fmt: skip
    scale_learning_rate: bool | None = arg(
        None,
        "Take --learning_rate as the dense network's and multiply it by exp(1.969 s^2 + 0.2905 s) at sparsity s. "
        "Default: for masked_lm only.",
        methods=SPARSE,
    )
    num_phases: int = arg(
        2, "For alternate: equal parts of the run, which are dense and sparse by turns.",
        methods=("alternate",), rare=True, least=2,
    )  # fmt: skip
    first_phase: Literal["dense", "sparse"] = arg(
        "dense", "For alternate: how the run begins.",
        methods=("alternate",), rare=True,
    )  # fmt: skip
    selection: Literal["fixed", "magnitude", "random"] = arg(
        "fixed",
        "For alternate: what stays active in a sparse phase: random weights drawn once, each tensor's largest ones, "
        "or random ones drawn at each phase.",
        methods=("alternate",), rare=True,
    )  # fmt: skip
