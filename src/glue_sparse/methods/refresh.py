"""A mask that is chosen anew while training, by its score on the model as it is then."""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from glue_sparse.core.active import active_tensors
from glue_sparse.core.batches import Batch
from glue_sparse.core.masks import Masks
from glue_sparse.core.parametrization import current_tensors, original, read_entries, write_entries
from glue_sparse.core.reindexing import reindex
from glue_sparse.methods.base import Batches, Combine, Moment
from glue_sparse.methods.schedules import Period, Schedule

Choose = Callable[[nn.Module, tuple[str, ...], Batches, Combine, int], Masks]
"""(plain model, head, batches, combine, number of the choice) -> masks."""


class Refresh:
    """Chooses the active entries again every so many steps; what stops being active keeps its last value.

    Where it chooses `once`, what stops being active gets its first value back, as if it had never trained.

    Args:
        every: optimizer steps between choices; below 1, a fraction of the run; or `epoch`.
        once: only the first time, which is final.
        plain: a copy of the model without active entries, by which to choose: what a refreshed mask costs in memory.
    """

    def __init__(self, every: Period, choose: Choose, plain: nn.Module, once: bool = False):
        self.every: Period = every
        self.once = once
        self.choose, self.plain = choose, copy.deepcopy(plain)

    def masks(self, model: nn.Module, moment: Moment) -> Masks | None:
        """New masks where it is time for them; the first choice has been made before step 0."""
        if self.once:
            assert self.every != "epoch"
            check_late_choice(self.every, moment.num_steps)
        schedule = Schedule(every=self.every, until=1.0).in_steps(moment.num_steps, moment.num_epochs)
        if not schedule.is_update(moment.step):
            return None
        assert isinstance(schedule.every, int)
        number = moment.step // schedule.every
        if self.once and number > 1:
            return None
        tensors = current_tensors(self.plain)
        with torch.no_grad():
            for name, tensor in current_tensors(model).items():
                tensors[name].data.copy_(tensor)

        def batches(num_samples: int) -> Iterable[Batch]:
            return moment.draw(num_samples, number)

        return self.choose(self.plain, moment.head, batches, moment.combine, number)

    def update(self, model: nn.Module, moment: Moment) -> None:
        """Move the active entries where it is time."""
        first = {name: (entries.indices, read_entries(self.plain.get_parameter(name), entries.indices))
                 for name, entries in active_tensors(model)} if self.once else {}  # fmt: skip
        if masks := self.masks(model, moment):
            reindex(model, masks, moment.optimizer)
            _put_back(model, first)


def check_late_choice(after: float, num_steps: int) -> None:
    """Raise a ValueError where a run is over before it chooses, or before what it has chosen can train.

    Args:
        after: steps; below 1, a fraction of the run.
    """
    if not Schedule(every=after, until=1.0).in_steps(num_steps).num_updates:
        raise ValueError(f"`choose_after` {after:g} leaves no steps to train what is chosen, in a run of {num_steps} "
                         "steps: lower it, or train longer")  # fmt: skip


def _put_back(model: nn.Module, first: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Undo what has been trained in entries that are no longer active; they do not count as explored either.

    Args:
        first: tensor -> flat positions, and the values that they had at the start.
    """
    for name, entries in active_tensors(model):
        if name in first:
            indices, values = first[name]
            left = ~torch.isin(indices, entries.indices)
            write_entries(original(model, name), indices[left], values[left])
            entries.explored = None
