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
_JOINS = frozenset((torch.cat, torch.concat, torch.concatenate, torch.hstack, torch.vstack))


class Selections:
    """It is told of every operation on a batch, in order.

    Args:
        batch: what the model is given.
        num_examples: of the batch.
    """

    def __init__(self, batch: Mapping[str, Any], num_examples: int):
        self.num_examples = num_examples
        self._is_mixed: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        for x in batch.values():
            if isinstance(x, Tensor) and x.dim() and len(x) == num_examples:
                self._is_mixed[x] = False

    def is_mixed(self, x: Tensor) -> bool:
        """Whether its rows were chosen so that not all examples have as many, or that they are in another order."""
        return bool(self._is_mixed.get(x, False))

    def note(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor], output: Any
    ) -> None:
        """What is known of an operation's result; `tensors` are those among its arguments."""
        known = [x for x in tensors if x in self._is_mixed]
        if not known:
            return
        mixed = [x for x in known if self._is_mixed[x]]
        chosen = not mixed and self._mixes(func, args, kwargs, output)
        for x in tensors_in((output,)):
            if x.dim():
                alike = any(len(x) == len(m) or x.numel() == m.numel() for m in mixed)
                self._is_mixed[x] = chosen or alike
        if output is None and args and isinstance(args[0], Tensor):
            self._is_mixed.setdefault(args[0], False)

    def _mixes(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> bool:
        if getattr(func, "__name__", "") == "_pack_padded_sequence":
            return True
        if func in _JOINS and kwargs.get("dim", *args[1:] or (0,)) == 0:
            return len({len(x) for x in tensors_in(args[:1]) if x.dim()}) > 1
        if not args or not isinstance(args[0], Tensor) or args[0] not in self._is_mixed:
            return False  # it chooses from a table of constants, for instance
        if not _chooses_rows(func, args, kwargs):
            return False
        n, x = self.num_examples, args[0]
        if not isinstance(output, Tensor) or not x.dim() or not output.dim() or len(x) % n:
            return False
        if len(output) % n:
            return True
        owners = _numbers(len(x), n, x).expand(x.shape)
        found = func(owners, *args[1:], **kwargs)
        return not bool((found == _numbers(len(output), n, output)).all())


def _numbers(length: int, num_examples: int, like: Tensor) -> Tensor:
    """Whose each row is, if all have as many and stand one after the other: [length, 1, ...]."""
    each = torch.arange(length, dtype=torch.int32, device=like.device) // (length // num_examples or 1)
    return each.view(-1, *[1] * (like.dim() - 1))


def _chooses_rows(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
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
