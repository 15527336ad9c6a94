"""Rows of a batch by their tasks: put together, and the outputs' rows put back in order."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Rows = dict[str, list[Any]]
"""Field of a model's output -> for each row of the batch a tensor without the batch's axis, or a tuple of such."""


class Group(NamedTuple):
    """Rows of one task, which stand together: its name, none for the base, the first row and the one after the last."""

    task: str | None
    start: int
    stop: int


class Sorted(NamedTuple):
    """A batch with the rows of each task together.

    Attributes:
        batch: what the model is given.
        groups: the tasks, in the order in which they first come.
        order: [rows] which row of the given batch each one is.
    """

    batch: dict[str, Any]
    groups: list[Group]
    order: Tensor


def by_task(batch: Mapping[str, Any], tasks: Sequence[str | None]) -> Sorted:
    """The batch with the rows of each task together.

    Raises:
        ValueError: a tensor whose first axis is not that of the rows, labels, or what is neither tensor nor number.
    """
    check(batch, tasks)
    rows: dict[str | None, list[int]] = {}
    for row, task in enumerate(tasks):
        rows.setdefault(task, []).append(row)
    groups, start = [], 0
    for task, found in rows.items():
        groups.append(Group(task, start, start + len(found)))
        start += len(found)
    order = torch.tensor([row for found in rows.values() for row in found])
    if torch.equal(order, torch.arange(len(order))):
        return Sorted(dict(batch), groups, order)
    return Sorted(taken(batch, order), groups, order)


def check(batch: Mapping[str, Any], tasks: Sequence[str | None]) -> None:
    """Raise a ValueError for a batch that cannot be taken apart into the rows of these tasks."""
    if not len(tasks):
        raise ValueError("`tasks` is empty: name the task of each row of the batch, or None for the base")
    if "labels" in batch:
        raise ValueError("the rows of this batch belong to different tasks, which have no loss in common: leave out "
                         "`labels` and take the losses of the rows' logits")  # fmt: skip
    for name, value in batch.items():
        if isinstance(value, Tensor):
            if not value.dim() or len(value) != len(tasks):
                raise ValueError(f"`{name}` has shape {tuple(value.shape)}, and there are {len(tasks)} `tasks`: its "
                                 "first axis must be that of the rows")  # fmt: skip
        elif value is not None and not isinstance(value, bool | int | float | str):
            raise ValueError(f"`{name}` is a {type(value).__name__}, which cannot be taken apart into rows: leave it "
                             "out")  # fmt: skip


def taken(batch: Mapping[str, Any], rows: Tensor | slice) -> dict[str, Any]:
    """Some rows of a batch; what is no tensor stays."""

    def of(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value[rows] if isinstance(rows, slice) else value.index_select(0, rows.to(value.device))

    return {name: of(value) for name, value in batch.items()}


def check_model(model: nn.Module) -> None:
    """Raise a ValueError for a model in training mode, whose dropout would hit the tasks at random."""
    if model.training:
        raise ValueError("the model is in training mode: call `model.eval()` first")


@contextmanager
def answering() -> Iterator[None]:
    """Without gradients, and without the casts of weights that autocast keeps: weights change between two layers."""
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(kept)


def split(output: Any, count: int) -> Rows:
    """Rows of a model's output; fields without one entry for each row, such as caches, are left out.

    Raises:
        ValueError: an output without named fields.
    """
    if not isinstance(output, Mapping):
        raise ValueError(f"the model gives a {type(output).__name__}, and its fields must have names: leave out "
                         "`return_dict=False`, or let it return a dict")  # fmt: skip
    found: Rows = {}
    for name, value in output.items():
        if _has_rows(value, count):
            found[name] = list(value.unbind(0))
        elif isinstance(value, tuple) and value and all(_has_rows(one, count) for one in value):
            found[name] = list(zip(*(one.unbind(0) for one in value), strict=True))
    return found


def _has_rows(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == count


def in_order(parts: Sequence[tuple[Sequence[int], Rows]]) -> Rows:
    """(numbers of rows in the batch, those rows) of several tasks to all rows, in the batch's order.

    Raises:
        ValueError: the tasks' outputs have different fields.
    """
    count, fields = sum(len(numbers) for numbers, _ in parts), parts[0][1].keys()
    found: Rows = {field: [None] * count for field in fields}
    for numbers, rows in parts:
        if rows.keys() != fields:
            raise ValueError(f"one task gives {', '.join(fields)}, and another {', '.join(rows)}: use one at a time")
        for field, values in rows.items():
            for number, value in zip(numbers, values, strict=True):
                found[field][number] = value
    return found
