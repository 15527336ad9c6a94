"""What one use of a tensor adds to the gradient of each example: outer products, rows of a table, or plain numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Power = Callable[[Tensor], Tensor]
"""Square or absolute value: both satisfy power(a * b) = power(a) * power(b), which the rules use."""

_CHUNK_ENTRIES = 1 << 22
"""Entries of per-example gradients that are held at once on a GPU."""
_TILE_ENTRIES = 3 << 18
"""Entries of one example's gradient that are held at once on a CPU: they and their sums stay in its cache."""


class Part(Protocol):
    """What one use of a tensor adds to the gradient of each example."""

    def add(self, total: Tensor, power: Power) -> None:
        """total += sum over examples of power(gradient), where this is the only use."""
        ...

    def of(self, i: int) -> Tensor:
        """Example i's gradient, float32, of the tensor's shape."""
        ...


@dataclass(frozen=True)
class Outer:
    """left_i^T right_i, from left [n, t, a] and right [n, t, b]: the weight of a product."""

    left: Tensor
    right: Tensor

    def add(self, total: Tensor, power: Power) -> None:
        """See `Part.add`."""
        if total.is_cuda:
            self._add_in_chunks(total, power)
            return
        left, right, counts = self._rows_in_use()
        if max(counts, default=0) <= 1:
            total.addmm_(power(left).T, power(right))
            return
        sides = [*zip(left.split(counts), right.split(counts), strict=True)]
        height = max(1, _TILE_ENTRIES // total.shape[1])
        room = total.new_empty(min(height, len(total)), total.shape[1])
        for start, rows in zip(range(0, len(total), height), total.split(height), strict=True):
            gradient = room[: len(rows)]
            for some_left, some_right in sides:
                torch.mm(some_left[:, start : start + height].T, some_right, out=gradient)
                add_power(rows, gradient, power)

    def _rows_in_use(self) -> tuple[Tensor, Tensor, list[int]]:
        """The rows [m, a] and [m, b] that are zero on no side, and how many of them each example has.

        Others add nothing: those of padding, and in a last layer those of tokens that the loss does not read.
        """
        in_use = _has_any(self.left) & _has_any(self.right)
        counts = in_use.sum(1).tolist()
        if in_use.all():
            return self.left.flatten(0, 1), self.right.flatten(0, 1), counts
        return self.left[in_use], self.right[in_use], counts

    def _add_in_chunks(self, total: Tensor, power: Power) -> None:
        left, right = self.left, self.right
        if left.shape[1] == 1:
            total.addmm_(power(left[:, 0]).T, power(right[:, 0]))
            return
        chunk = max(1, _CHUNK_ENTRIES // total.numel())
        for some_left, some_right in zip(left.split(chunk), right.split(chunk), strict=True):
            total += power(torch.bmm(some_left.transpose(1, 2), some_right)).sum(0)

    def of(self, i: int) -> Tensor:
        """See `Part.of`."""
        return self.left[i].T @ self.right[i]


@dataclass(frozen=True)
class Explicit:
    """Gradients as they are, [n, *shape]: small tensors."""

    gradients: Tensor

    def add(self, total: Tensor, power: Power) -> None:
        """See `Part.add`."""
        total += power(self.gradients).sum(0)

    def of(self, i: int) -> Tensor:
        """See `Part.of`."""
        return self.gradients[i]


@dataclass(frozen=True)
class Rows:
    """Rows of a table [size, d], from ids [n, t] and the gradients [n, t, d] of what was looked up."""

    ids: Tensor
    gradients: Tensor
    size: int

    def add(self, total: Tensor, power: Power) -> None:
        """See `Part.add`."""
        examples = torch.arange(len(self.ids), device=self.ids.device).unsqueeze(1)
        rows, inverse = (self.ids + self.size * examples).flatten().unique(return_inverse=True)
        found = self.gradients.new_zeros(len(rows), self.gradients.shape[-1])
        found.index_add_(0, inverse, self.gradients.flatten(0, 1))
        total.index_add_(0, rows % self.size, power(found))

    def of(self, i: int) -> Tensor:
        """See `Part.of`."""
        table = self.gradients.new_zeros(self.size, self.gradients.shape[-1])
        return table.index_add_(0, self.ids[i], self.gradients[i])


@dataclass(frozen=True)
class Replayed:
    """Gradients [*shape] of one example at a time, by a function of its number: what has no shorter formula."""

    compute: Callable[[int], Tensor]
    num_examples: int

    def add(self, total: Tensor, power: Power) -> None:
        """See `Part.add`."""
        for i in range(self.num_examples):
            add_power(total, self.compute(i), power)

    def of(self, i: int) -> Tensor:
        """See `Part.of`."""
        return self.compute(i)


def add_power(total: Tensor, gradient: Tensor, power: Power) -> None:
    """total += power(gradient), in one pass where torch has one."""
    if power is torch.square:
        total.addcmul_(gradient, gradient)
    else:
        total += power(gradient)


def _has_any(rows: Tensor) -> Tensor:
    """[n, t]: whether a row of [n, t, d] has an entry other than zero."""
    return (rows.amax(-1) != 0) | (rows.amin(-1) != 0)
