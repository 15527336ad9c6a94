"""When active entries move, and how many of them, as functions of the optimizer step."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from glue_sparse.writing import bounds
from glue_sparse.writing.words import check_one_of

Period = float | Literal["epoch"]
Decay = Literal["constant", "cosine", "linear"]


@dataclass(frozen=True)
class Schedule:
    """Updates at steps `every`, 2 `every`, ... before `until`; steps count from 0, so step 0 never is one.

    Attributes:
        every: optimizer steps between updates; below 1, a fraction of the run; or `epoch`.
        until: no update at this step or later; up to 1, a fraction of the run.
        drop_fraction: share of a tensor's active entries that the first update would drop, in [0, 1].
        decay: how that share falls to zero at `until`: by a cosine (Dettmers and Zettlemoyer, 2019; Evci et al., 2020,
            equation 1), linearly, or not at all.
        intervals: instead of `every` and `until`, equal intervals that the run is cut into, with an update at the end
            of each but the last (Dietrich et al., 2021, arXiv 2108.06277, algorithm 1).
    """

    every: Period = 100
    until: float = 0.75
    drop_fraction: float = 0.3
    decay: Decay = "cosine"
    intervals: int | None = None

    def __post_init__(self):
        bounds.check("num_updates", self.intervals, bounds.COUNT, int)
        bounds.check("drop_fraction", self.drop_fraction, bounds.SHARE)
        if self.every != "epoch":
            period_of(str(self.every))
        if self.until not in bounds.STEPS:
            raise ValueError(f"`update_until` is a step, or a fraction of the run up to 1; not {self.until}")
        check_one_of("schedule", self.decay, get_args(Decay))

    def in_steps(self, num_steps: int, num_epochs: float | None = None) -> "Schedule":
        """The same for a run of known length, with epochs and fractions turned into steps.

        Raises:
            ValueError: a period of an epoch, and no epochs; more intervals than steps.
        """
        if self.intervals is not None:
            if self.intervals > num_steps:
                raise ValueError(f"`num_updates` {self.intervals} needs at least as many steps, and this run has "
                                 f"{num_steps}: lower it, or train longer")  # fmt: skip
            return replace(self, every=max(1, round(num_steps / self.intervals)), until=num_steps)
        if self.every == "epoch" and not num_epochs:
            raise ValueError("`update_every` is an epoch, and this training is told its steps alone: give it in steps")
        every = 1 / (num_epochs or 1) if self.every == "epoch" else self.every
        if self.every == "epoch" or every < 1:
            every = max(1, round(every * num_steps))
        until = round(self.until * num_steps) if self.until <= 1 else int(self.until)
        # an update needs a step after it in which what has grown can learn
        return replace(self, every=int(every), until=max(1, min(until, num_steps - 1)))

    def is_update(self, step: int) -> bool:
        """Whether entries move at this step; for schedules `in_steps`."""
        assert isinstance(self.every, int)
        if self.intervals is None:
            return 0 < step < self.until and step % self.every == 0
        return bool(beginning(step + 1, self.intervals, int(self.until)))

    def fraction(self, step: int) -> float:
        """Share of active entries to drop at a step."""
        if self.decay == "constant":
            return self.drop_fraction
        time = step if self.intervals is None else step + 1  # an interval ends when its last step is done
        done = min(1.0, time / self.until)
        factor = (1 + math.cos(math.pi * done)) / 2 if self.decay == "cosine" else 1 - done
        return self.drop_fraction * factor

    @property
    def num_updates(self) -> int:
        """Updates in all; for schedules `in_steps`."""
        assert isinstance(self.every, int)
        if self.intervals is not None:
            return self.intervals - 1
        return max(0, math.ceil(self.until / self.every) - 1)


def period_of(text: str) -> Period:
    """A period as typed: steps, a fraction of the run, or `epoch`; ValueError for anything else."""
    if text == "epoch":
        return "epoch"
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if number not in bounds.STEPS:
        raise ValueError(f"`update_every` is a number of steps, a fraction of the run below 1, or epoch; not {text}")
    return number


def boundary(number: int, intervals: int, num_steps: int) -> int:
    """First step of one of the equal intervals that a run is cut into, all from 0; halves round up."""
    return (2 * number * num_steps + intervals) // (2 * intervals)


def beginning(step: int, intervals: int, num_steps: int) -> int | None:
    """The interval whose first step this is; none in the middle of one, and at the end of the run."""
    number = -(-(2 * step - 1) * intervals // (2 * num_steps))  # the first that begins no earlier
    return number if number < intervals and boundary(number, intervals, num_steps) == step else None
