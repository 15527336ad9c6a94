"""Runs cut into equal phases that are by turns dense and sparse: which phase a step is in, and what they compute."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from glue_sparse.core.options import Inactive
from glue_sparse.costs.formulas import Forward
from glue_sparse.methods.schedules import beginning, boundary
from glue_sparse.writing.words import check_one_of

First = Literal["dense", "sparse"]


@dataclass(frozen=True)
class Phases:
    """Phase k of n, from 0, has the steps from round(k T / n) up to round((k + 1) T / n) of T; halves round up.

    Raises:
        ValueError: fewer than two phases, or more than there are steps.
    """

    num_phases: int
    first: First
    num_steps: int

    def __post_init__(self):
        check(self.num_phases, self.first)
        if self.num_phases > self.num_steps:
            raise ValueError(f"`num_phases` {self.num_phases} needs at least as many steps, and this run has "
                             f"{self.num_steps}: lower it, or train longer")  # fmt: skip

    def start(self, phase: int) -> int:
        """First step of a phase."""
        return boundary(phase, self.num_phases, self.num_steps)

    def starting(self, step: int) -> int | None:
        """The phase whose first step this is; none in the middle of one."""
        return beginning(step, self.num_phases, self.num_steps)

    def is_dense(self, phase: int) -> bool:
        """Whether all entries train in a phase."""
        return (phase % 2 == 0) == (self.first == "dense")

    @property
    def dense_share(self) -> float:
        """Share of the steps that are in dense phases."""
        lengths = [self.start(k + 1) - self.start(k) for k in range(self.num_phases) if self.is_dense(k)]
        return sum(lengths) / self.num_steps

    @property
    def ends_dense(self) -> bool:
        """Whether the last phase is dense."""
        return self.is_dense(self.num_phases - 1)


def check(num_phases: int, first: str) -> None:
    """Raise a ValueError for fewer than two phases, or an unknown kind of phase."""
    if num_phases < 2:
        raise ValueError(f"`num_phases` must be at least 2, one dense and one sparse, got {num_phases}")
    check_one_of("first phase", first, get_args(First))


def mean_training_flops(forward: Forward, densities: Mapping[str, float], phases: Phases, inactive: Inactive) -> float:
    """FLOPs of one example in one training step, in the mean over the steps of all phases.

    A dense phase costs what dense training does; a sparse one 3 f_S where inactive entries are zero, and 2 f_D + f_W
    where they are frozen, with the terms of `formulas.training_flops`. Choosing the entries of a phase is not counted.

    Args:
        forward: of the model as the last phase left it.
        densities: tensor -> its share of active entries in sparse phases.
    """
    dense = forward.dense
    saved = sum(forward.by_tensor.get(name, 0.0) * (1 - density) for name, density in densities.items())
    whole = forward.trained + (0.0 if phases.ends_dense else saved)
    if inactive == "zero":
        in_dense, in_sparse = 3 * dense, 3 * (dense - saved)
    else:
        in_dense, in_sparse = 2 * dense + whole, 2 * dense + whole - saved
    return phases.dense_share * in_dense + (1 - phases.dense_share) * in_sparse
