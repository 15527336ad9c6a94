"""Sums over examples, a number for each scored entry: added in float32, and kept in float32 or bfloat16."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from glue_sparse.core.pieces import SIZE
from glue_sparse.core.randomness import seed_of
from glue_sparse.core.rounding import stochastically
from glue_sparse.core.shards import local


class Sums(Mapping[str, Tensor]):
    """Parameter name -> sums, of the parameter's shape, changed in place.

    In bfloat16 what is added at once is rounded stochastically, by random numbers that follow from the name and how
    often something was added: rounding to the nearest would lose all that is small beside the sum.

    Args:
        tensors: what to add to.
    """

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors
        self._times: Counter[str] = Counter()

    @classmethod
    def zeros(cls, model: nn.Module, names: tuple[str, ...], dtype: torch.dtype = torch.float32) -> "Sums":
        """Of nothing yet, where the parameters are; of a sharded model, of this rank's parts."""
        return cls({name: torch.zeros_like(local(model.get_parameter(name)), dtype=dtype) for name in names})

    @contextmanager
    def adding(self, name: str) -> Iterator[Tensor]:
        """A float32 tensor to add to in the block; in bfloat16 one of its own, which is added after it."""
        total = self.tensors[name]
        if total.dtype == torch.float32:
            yield total
            return
        part = torch.zeros_like(total, dtype=torch.float32)
        yield part
        self.add(name, part)

    def add(self, name: str, part: Tensor, function: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        """Add a function of a tensor, entry by entry in float32; no memory of a whole tensor is needed."""
        total = self.tensors[name].view(-1)
        generator = None
        if total.dtype != torch.float32:
            generator = torch.Generator(total.device).manual_seed(seed_of(0, "sums", name, self._times[name]))
            self._times[name] += 1
        for mine, more in zip(total.split(SIZE), part.reshape(-1).split(SIZE), strict=True):
            if generator is None:
                mine += function(more.float())
            else:
                mine.copy_(stochastically(mine.float() + function(more.float()), generator))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)
