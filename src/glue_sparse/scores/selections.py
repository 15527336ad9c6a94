"""Follows which tensors hold the examples of a batch one after the other, and which hold some of their rows.

Rows that are chosen by their values (the tokens of an expert, those that are no padding, examples in the order of their
lengths) may by chance be as many as there are examples. Their shape then says nothing about whose they are.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_BY_DIMENSION = frozenset((
    Tensor.index_select, torch.index_select, Tensor.gather, torch.gather, Tensor.take_along_dim, torch.take_along_dim,
    Tensor.flip, torch.flip,
))  # fmt: skip
"""Operations that choose along a dimension."""
_UNKNOWN = torch.empty(0)
_JOINS = frozenset((torch.cat, torch.concat, torch.concatenate, torch.hstack, torch.vstack))


class Selections:
    """It is told of every operation on a batch, in order.

    Args:
        batch: what the model is given.
        num_examples: of the batch.
    """

    def __init__(self, batch: Mapping[str, Any], num_examples: int):
        self.num_examples = num_examples
        self._owners: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        """Tensors with something of the examples -> [rows] whose each row is; none where they stand in order."""
        for x in batch.values():
            if isinstance(x, Tensor) and x.dim() and len(x) == num_examples:
                self._owners[x] = None

    def is_mixed(self, x: Tensor) -> bool:
        """Whether its rows were chosen so that not all examples have as many, or that they are in another order."""
        return self._owners.get(x) is not None

    def note(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor], output: Any
    ) -> None:
        """What is known of an operation's result; `tensors` are those among its arguments."""
        known = [x for x in tensors if x in self._owners]
        if not known:
            return
        mixed = [x for x in known if self.is_mixed(x)]
        chooses = _chooses_rows(func, args, kwargs) and args[0] in self._owners  # not from a table of constants
        chosen = self._chosen(func, args, kwargs, output) if chooses else None
        unknown = self._is_joined_or_packed(func, args, kwargs)
        for x in tensors_in((output,)):
            if x.dim() and not chooses:
                alike = [m for m in mixed if len(x) == len(m) or x.numel() == m.numel()]
                kept = self._owners[alike[0]] if alike and len(x) == len(alike[0]) else _UNKNOWN
                self._owners[x] = _UNKNOWN if unknown else kept if alike else None
            elif x.dim():
                self._owners[x] = chosen
        if output is None and args and isinstance(args[0], Tensor):
            self._owners.setdefault(args[0], None)

    def _is_joined_or_packed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if func in _JOINS and kwargs.get("dim", *args[1:] or (0,)) == 0:
            return len({len(x) for x in tensors_in(args[:1]) if x.dim()}) > 1
        return getattr(func, "__name__", "") == "_pack_padded_sequence"

    def _chosen(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor | None:
        """[rows] owners of what was chosen of the first argument; none where they stand in order."""
        x = args[0]
        owners = self._owners[x] if self.is_mixed(x) else self._in_order(x)
        if owners is None or not isinstance(output, Tensor) or not output.dim() or len(owners) != len(x):
            return _UNKNOWN
        found = func(owners.view(-1, *[1] * (x.dim() - 1)).expand(x.shape), *args[1:], **kwargs)
        rows = found.reshape(len(found), -1)
        if not rows.shape[1] or not bool((rows == rows[:, :1]).all()):
            return _UNKNOWN
        standing = self._in_order(output)
        return None if standing is not None and torch.equal(rows[:, 0], standing) else rows[:, 0]

    def _in_order(self, x: Tensor) -> Tensor | None:
        """[rows] owners, if all examples have as many rows and stand one after the other."""
        if not len(x) or len(x) % self.num_examples:
            return None
        return torch.arange(len(x), dtype=torch.int32, device=x.device) // (len(x) // self.num_examples)


def _chooses_rows(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if not args or not isinstance(args[0], Tensor) or not args[0].dim():
        return False
    if func is Tensor.__getitem__:
        first = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
        return isinstance(first, Tensor | list) or hasattr(first, "__array__")
    if func is Tensor.masked_select or func is torch.masked_select:
        return True
    if func not in _BY_DIMENSION:
        return False
    place = 2 if func in (Tensor.take_along_dim, torch.take_along_dim) else 1
    given = [*args[place : place + 1], kwargs.get("dim"), kwargs.get("dims")]
    dimensions = [d for x in given for d in (x if isinstance(x, list | tuple) else [x])]
    return any(d in (0, -args[0].dim()) for d in dimensions)


def tensors_in(values: tuple[Any, ...]) -> Iterator[Tensor]:
    """The tensors among values, and in lists and tuples of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(tuple(value))
