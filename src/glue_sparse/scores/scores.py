"""What an entry is worth: a score is any function (model, names, batches) -> one number per entry of those tensors."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from glue_sparse.core.batches import Batch
from glue_sparse.core.masks import Scores
from glue_sparse.core.randomness import seeded

ScoreFunction = Callable[[nn.Module, tuple[str, ...], Iterable[Batch]], Scores]
"""(model, names of the tensors to score, collated batches) -> scores. The scores of several ranks are added."""


class Computed(Mapping[str, Tensor]):
    """Scores computed anew whenever they are read, so that those of a large model never exist all at once."""

    def __init__(self, names: tuple[str, ...], compute: Callable[[str], Tensor]):
        self._names, self._compute = dict.fromkeys(names), compute

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def magnitude(model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch] = ()) -> Scores:
    """|w|, computed when it is read; uses no data.

    Args:
        model: whose weights are scored.
        names: of the parameters to score.
        batches: not looked at.
    Returns:
        Parameter name -> a float32 number per entry, in the tensor's shape.
    """
    return Computed(names, lambda name: model.get_parameter(name).detach().abs().float())


def noise(model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch] = (), *, seed: int = 0) -> Scores:
    """Uniform noise that depends on (seed, name) alone: the random baseline; uses no data.

    Args:
        model: whose weights are scored.
        names: of the parameters to score.
        batches: not looked at.
        seed: another one gives other noise.
    Returns:
        Parameter name -> a number in [0, 1) per entry, in the tensor's shape.
    """
    shapes = {name: model.get_parameter(name).shape for name in names}
    return {name: torch.rand(shape, generator=seeded(seed, "noise", name)) for name, shape in shapes.items()}
