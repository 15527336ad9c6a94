"""FLOPs of a training step from those of a forward pass, by formula (Evci et al., 2020, RigL, arXiv 1911.11134, H)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Formula = Literal["dense", "static", "snfs", "rigl", "frozen"]
"""How a method trains; `training_flops` has the formulas."""
Rule = Formula | Callable[["Forward"], float]
"""One of them, or a function of its own where none fits."""


@dataclass(frozen=True)
class Forward:
    """FLOPs of one example's forward pass, as a mean over the examples of a batch."""

    dense: float
    """With all weights present: f_D of the formulas."""
    sparse: float
    """With each tensor's share times the density of what it holds: f_S. Frozen inactive entries compute, so count."""
    trained: float
    """Share of the entries that train: whole tensors that require a gradient, active entries by their density, and all
    products without a weight, whose backward pass does not shrink."""
    by_tensor: dict[str, float]
    """Original name of each weight -> its share of `dense`. What is missing to `dense` are products without one."""


def training_flops(rule: Rule, forward: Forward, update_every: int | None = None) -> float:
    """FLOPs of one example in one training step (RigL, appendix H), in the mean over steps.

    * `dense`: 3 f_D.
    * `static`: 3 f_S, a fixed mask of zeros; also SET, whose changes need no gradient, and one-shot pruning.
    * `snfs`: 2 f_S + f_D, the dense gradient of the weights at each step.
    * `rigl`: (3 f_S T + 2 f_S + f_D) / (T + 1), with T = `update_every`.
    * `frozen`: 2 f_D + f_W with f_W = `forward.trained`, where inactive entries keep their values (FISH mask). It is
      not from a paper: forward pass and gradients of the inputs are dense, those of weights at active entries only.
    * a function: what it says.

    Args:
        update_every: steps between two changes of the mask; only `rigl` uses it.
    Raises:
        ValueError: an unknown rule, or `rigl` without a positive `update_every`.
    """
    if callable(rule):
        return rule(forward)
    dense, sparse = forward.dense, forward.sparse
    if rule == "rigl":
        if update_every is None or update_every < 1:
            raise ValueError(f"the FLOPs of `rigl` need `update_every` of at least 1 step, not {update_every}")
        return (3 * sparse * update_every + 2 * sparse + dense) / (update_every + 1)
    if rule not in get_args(Formula):
        raise ValueError(f"no training FLOPs for {rule!r}; choose one of {', '.join(get_args(Formula))}")
    return {
        "dense": 3 * dense,
        "static": 3 * sparse,
        "snfs": 2 * sparse + dense,
        "frozen": 2 * dense + forward.trained,
    }[rule]
