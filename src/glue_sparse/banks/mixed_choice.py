"""Which of two ways a batch of several tasks takes, by what both took before."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from glue_sparse.banks.corrections import CannotMix, Corrections
from glue_sparse.banks.mixed import MixedForward, loop_forward
from glue_sparse.banks.mixed_rows import Rows, check_model
from glue_sparse.banks.mixed_rows import check as check_batch

Way = Literal["mixed", "loop"]
How = Literal["auto", "mixed", "loop"]
TRIES = 2
"""Batches of a size that each way is timed on; the shorter time counts, since the first one sets things up."""


class Done(NamedTuple):
    """How the last batch was computed, and why so."""

    way: Way
    why: str


class Times(NamedTuple):
    """Seconds of the batches of one size, by way."""

    mixed: list[float]
    loop: list[float]

    def next(self) -> Done:
        """The way of the next batch: both in turns until both are known, then the faster one."""
        if len(self.loop) < TRIES:
            way: Way = "mixed" if len(self.mixed) == len(self.loop) else "loop"
            return Done(way, "both ways are being timed on batches of this size")
        mixed, loop = min(self.mixed), min(self.loop)
        told = f"batches of this size took {1000 * mixed:.0f} ms mixed and {1000 * loop:.0f} ms in a loop"
        return Done("mixed" if mixed < loop else "loop", told)


class MixedOrLoop:
    """Computes batches of several tasks in the faster of both ways.

    The first four batches of a size are timed, in turns, and are answers like any other; sizes are numbers of tasks,
    rows and entries of a row, rounded up to powers of two. The ways differ by rounding alone.

    Args:
        mixed: of the model.
        use: task -> a block within which the model is that task's.
        prepared: task -> its corrections, from `MixedForward.prepare`; asked for in every batch.
    Attributes:
        last: how the last batch was computed; none before the first.
    """

    def __init__(
        self, mixed: MixedForward, use: Callable[[str], AbstractContextManager[Any]],
        prepared: Callable[[str], Corrections],
    ):  # fmt: skip
        self.mixed, self.use, self.prepared = mixed, use, prepared
        self.times: dict[tuple[int, ...], Times] = {}
        self.last: Done | None = None

    def forward(self, batch: Mapping[str, Any], tasks: Sequence[str | None], how: How = "auto") -> Rows:
        """The output of each row with its task's weights, see `MixedForward.forward`.

        Args:
            batch, tasks: as there.
            how: `mixed`, `loop` (one pass for each task), or `auto`: the faster, and the loop where rows cannot be
                mixed.
        Raises:
            CannotMix: with `mixed`, where it cannot be.
            ValueError: as there, or an unknown `how`.
        """
        if how not in get_args(How):
            raise ValueError(f"`how` is {how!r}: give {', '.join(get_args(How))}")
        check_model(self.mixed.model)
        check_batch(batch, tasks)
        size = size_of(batch, tasks)
        times = self.times.setdefault(size, Times([], []))
        if how == "auto" and len(set(tasks)) > 1:
            done = times.next()
        else:
            done = Done("loop", "the batch has one task") if how == "auto" else Done(how, "it was asked for")
        if done.way == "mixed":
            try:
                return self._timed(done, batch, tasks, times)
            except CannotMix as error:
                if how == "mixed":
                    raise
                done = Done("loop", str(error))
        return self._timed(done, batch, tasks, times)

    def _timed(self, done: Done, batch: Mapping[str, Any], tasks: Sequence[str | None], times: Times) -> Rows:
        started = time.perf_counter()
        if done.way == "mixed":
            found = self.mixed.forward(batch, tasks, {task: self.prepared(task) for task in {*tasks} if task})
        else:
            found = loop_forward(self.use, self.mixed.model, batch, tasks)
        if len(times.loop) < TRIES:
            _wait(found)
            getattr(times, done.way).append(time.perf_counter() - started)
        self.last = done
        return found


def size_of(batch: Mapping[str, Any], tasks: Sequence[str | None]) -> tuple[int, ...]:
    """Tasks, rows, and entries of a row of the largest tensor, each rounded up to a power of two."""
    entries = max((x.numel() // len(x) for x in batch.values() if isinstance(x, Tensor)), default=1)
    return tuple(1 << (number - 1).bit_length() for number in (len(set(tasks)), len(tasks), entries))


def _wait(rows: Rows) -> None:
    """Until an accelerator is done."""
    value = next(iter(rows.values()))[0] if rows else None
    if isinstance(value, Tensor) and value.is_cuda:
        torch.cuda.synchronize(value.device)
