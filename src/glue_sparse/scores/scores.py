"""What an entry is worth: a score is any function (model, names, batches) -> one number per entry of those tensors."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from glue_sparse.core.batches import Batch
from glue_sparse.core.masks import Scores
from glue_sparse.core.pieces import SIZE, InPieces, pieces_of
from glue_sparse.core.randomness import seeded
from glue_sparse.core.shards import is_sharded, local, parts_of

Function = TypeVar("Function", bound=Callable[..., Scores])
ScoreFunction = Callable[[nn.Module, tuple[str, ...], Iterable[Batch]], Scores]
"""(model, names of the tensors to score, collated batches) -> scores.

Those of several ranks are added; of `Staged` ones, the sums that they follow from. One that is marked by `on_shards`
takes a model too that `fully_shard` has cut, and gives the scores of this rank's parts then, or the sums, of all
examples already."""
_ON_SHARDS: dict[Any, str] = {}
"""The functions that are marked, and their names."""


def on_shards(function: Function) -> Function:
    """Mark a score as one that takes a sharded model too; see `ScoreFunction`."""
    _ON_SHARDS[function] = function.__name__
    return function


def refuses_shards(score: ScoreFunction) -> str:
    """Why a score, or a `partial` of it, takes no sharded model; empty where it does."""
    while isinstance(score, partial):
        score = score.func
    if score in _ON_SHARDS:
        return ""
    name = getattr(score, "__name__", type(score).__name__)
    return (f"the score `{name}` cannot be computed on shards of a model: choose on the whole model before it is "
            f"sharded, or by one of {', '.join(_ON_SHARDS.values())}")  # fmt: skip


class Computed(InPieces):
    """Scores computed anew whenever they are read, so that those of a large model never exist all at once.

    Args:
        compute: name -> the scores of a tensor.
        in_pieces: name -> the tensor's shape, and the same scores in flat order as vectors of at most `pieces.SIZE`;
            without it those of a tensor exist at once.
    """

    def __init__(
        self, names: tuple[str, ...], compute: Callable[[str], Tensor],
        in_pieces: Callable[[str], tuple[torch.Size, Iterator[Tensor]]] | None = None,
    ):  # fmt: skip
        self._names, self._compute, self._in_pieces = dict.fromkeys(names), compute, in_pieces

    def pieces(self, name: str) -> tuple[torch.Size, Iterator[Tensor]]:
        """See `InPieces.pieces`."""
        return self._in_pieces(name) if self._in_pieces else pieces_of({name: self._compute(name)}, name)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Staged(Mapping[str, Tensor]):
    """Scores that are no sums over examples, but follow from sums: |g| of the gradient g of all examples.

    Read as a mapping it is what a single process gets, which has seen all examples.

    Args:
        sums: of this process's share of the examples; what ranks add.
        finish: sums over all examples -> the scores, or another stage.
    """

    def __init__(self, sums: Scores, finish: Callable[[Scores], Scores]):
        self.sums, self.finish = sums, finish

    @cached_property
    def _alone(self) -> Scores:
        return of_all_ranks(self, lambda sums: sums)

    def __getitem__(self, name: str) -> Tensor:
        return self._alone[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sums)

    def __len__(self) -> int:
        return len(self.sums)


def of_all_ranks(scores: Scores, combine: Callable[[Scores], Scores]) -> Scores:
    """The scores of all examples, from those of this rank's share.

    Args:
        combine: adds over ranks. It is called for each stage, so all ranks have to call this together.
    """
    if not isinstance(scores, Staged):
        return combine(scores)
    found: Scores = scores
    while isinstance(found, Staged):
        found = found.finish(combine(found.sums))
    return found


def check_names(scores: Scores, names: tuple[str, ...]) -> None:
    """Raise a ValueError for scores of other tensors than these."""
    if scores.keys() != set(names):
        raise ValueError(f"the score must name each of the {len(names)} tensors it is asked for, and no other")


@on_shards
def magnitude(model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch] = ()) -> Scores:
    """|w|, computed when it is read; uses no data.

    Args:
        model: whose weights are scored.
        names: of the parameters to score.
        batches: not looked at.
    Returns:
        Parameter name -> a float32 number per entry, in the tensor's shape.
    """

    def in_pieces(name: str) -> tuple[torch.Size, Iterator[Tensor]]:
        shape, parts = pieces_of({name: local(model.get_parameter(name))}, name)
        return shape, (part.abs().float() for part in parts)

    return Computed(names, lambda name: local(model.get_parameter(name)).detach().abs().float(), in_pieces)


@on_shards
def noise(model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch] = (), *, seed: int = 0) -> Scores:
    """Uniform noise that depends on (seed, name) alone, drawn when it is read: the random baseline; uses no data.

    Args:
        model: whose weights are scored.
        names: of the parameters to score.
        batches: not looked at.
        seed: another one gives other noise.
    Returns:
        Parameter name -> a number in [0, 1) per entry, in the tensor's shape.
    """
    shapes = {name: model.get_parameter(name).shape for name in names}
    parts = parts_of(model, names) if is_sharded(model) else {}

    def drawn(name: str) -> Iterator[Tensor]:
        generator, size = seeded(seed, "noise", name), shapes[name].numel()
        for start in range(0, size, SIZE) if size else (0,):
            piece = torch.rand(min(SIZE, size - start), generator=generator)  # the numbers that one call would give
            yield parts[name].cut(piece, start) if parts else piece

    def in_pieces(name: str) -> tuple[torch.Size, Iterator[Tensor]]:
        return parts[name].local_shape if parts else shapes[name], drawn(name)

    def whole(name: str) -> Tensor:
        shape, pieces = in_pieces(name)
        return torch.cat([*pieces]).view(shape)

    return Computed(names, whole, in_pieces)
