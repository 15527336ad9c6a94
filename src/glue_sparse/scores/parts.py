"""What one use of a tensor adds to the gradient of each example: outer products, rows of a table, or plain numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Power = Callable[[Tensor], Tensor]
"""Square or absolute value: both satisfy power(a * b) = power(a) * power(b), which the rules use."""

_CHUNK_ENTRIES = 1 << 22  # per-example gradients held at once on a GPU; on a CPU one at a time stays in its cache


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
        left, right = self.left, self.right
        if left.shape[1] == 1:
            total.addmm_(power(left[:, 0]).T, power(right[:, 0]))
            return
        chunk = max(1, _CHUNK_ENTRIES // total.numel()) if total.is_cuda else 1
        for some_left, some_right in zip(left.split(chunk), right.split(chunk), strict=True):
            gradient = torch.bmm(some_left.transpose(1, 2), some_right)
            total += power(gradient).sum(0) if len(gradient) > 1 else power(gradient[0])

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
            total += power(self.compute(i))

    def of(self, i: int) -> Tensor:
        """See `Part.of`."""
        return self.compute(i)
