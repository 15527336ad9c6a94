"""A layer in a batch of several tasks: one product with the base for all rows and what each task changes in it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from glue_sparse.banks.corrections import CannotMix, Changed, Corrections
from glue_sparse.banks.mixed_layouts import Layout, first_axes, tensors_in

FEW = 24
"""Positions of one task below which its sparse product costs less than a dense product of its own: on one CPU core, at
384 x 384 and 1536 x 384 with 0.5 % changed, it is ahead up to 16 and behind from 32 on."""


class Part(NamedTuple):
    """Rows of one task, the first and the one after the last, and its corrections; none for the base."""

    start: int
    stop: int
    corrections: Corrections | None


class MixedLayer:
    """Stands in for a layer's `forward` within one pass of a batch of several tasks.

    Of a task with few positions in a linear layer the sparse product of what it changes is added to the product with
    the base, which is one for all such tasks: `x (W + D)^T = x W^T + x D^T`. For the rows of any other task the layer
    computes with the task's entries in its tensors, which hold the base again right afterwards.

    Args:
        module: the layer.
        names: attribute -> name of the tensor, of those that a task of the batch changes.
        layout: how it sees rows.
        parts: the batch's tasks, in order.
    """

    def __init__(self, module: nn.Module, names: Mapping[str, str], layout: Layout, parts: Sequence[Part]):
        self.module, self.names, self.layout, self.parts = module, names, layout, parts
        self.forward = module.forward
        self.widths: list[int] = []
        """Of each part's output where they differ; those of others are filled up with NaN."""
        self.is_called = False

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        self.is_called = True
        self._check(args, kwargs)
        adds = [self._adds(part, args) for part in self.parts]
        pieces = [self._piece(piece, args, kwargs) for piece in self._pieces(adds)]
        output = self._joined(pieces)
        for part, added in zip(self.parts, adds, strict=True):
            if added and part.corrections is not None:
                self._add(output[part.start : part.stop], args[0][part.start : part.stop], part.corrections)
        return output

    def _check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        sizes, rows = first_axes(args, kwargs), self.parts[-1].stop
        if any(sizes.get(key) != rows for key in self.layout.split):
            name = next(iter(self.names.values()))
            raise CannotMix(f"the layer of {name} was given tensors whose first axis is not that of the {rows} rows")

    def _changes(self, part: Part) -> bool:
        return part.corrections is not None and any(name in part.corrections for name in self.names.values())

    def _adds(self, part: Part, args: tuple[Any, ...]) -> bool:
        """Whether the part's sparse product is added to the dense one of the base."""
        is_linear = type(self.module).forward in (nn.Linear.forward, Conv1D.forward)
        if not is_linear or self.layout.split != {0} or part.corrections is None or not self._changes(part):
            return False
        positions = (part.stop - part.start) * args[0][0].numel() // args[0].shape[-1]
        return positions < FEW and not any(name in part.corrections.whole for name in self.names.values())

    def _pieces(self, adds: Sequence[bool]) -> list[Part]:
        """Parts that are computed by themselves, and neighbours that share the product with the base."""
        found: list[Part] = []
        for part, added in zip(self.parts, adds, strict=True):
            if self._changes(part) and not added:
                found.append(part)
            elif found and found[-1].corrections is None:
                found[-1] = Part(found[-1].start, part.stop, None)
            else:
                found.append(Part(part.start, part.stop, None))
        return found

    def _piece(self, piece: Part, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        def rows(key: int | str, value: Any) -> Any:
            return value[piece.start : piece.stop] if key in self.layout.split else value

        if len(self.parts) > 1:
            args = tuple(rows(place, value) for place, value in enumerate(args))
            kwargs = {name: rows(name, value) for name, value in kwargs.items()}
        with _written(self.module, self.names, piece.corrections, args):
            output = self.forward(*args, **kwargs)
        if self.layout.is_shared:
            return output.expand(piece.stop - piece.start, *output.shape[1:])
        return output

    def _joined(self, pieces: list[Tensor]) -> Tensor:
        if len(pieces) == 1 and not self.layout.is_shared:
            return pieces[0]
        widths = [piece.shape[-1] for piece in pieces]
        widest = max(widths)
        if min(widths) < widest:
            self.widths = [width for piece, width in zip(pieces, widths, strict=True) for _ in range(len(piece))]
            pieces = [F.pad(piece, (0, widest - piece.shape[-1]), value=torch.nan) for piece in pieces]
        return torch.cat(pieces)

    def _add(self, output: Tensor, given: Tensor, corrections: Corrections) -> None:
        """Add in place what the changes of weight and bias make of [rows, ..., inputs]."""
        for attribute, name in self.names.items():
            changed, tensor = corrections.changed.get(name), tensors_in(self.module)[attribute]
            if changed is None:
                continue
            if tensor.dim() == 1:
                difference = torch.zeros_like(tensor)
                difference[changed.positions] = changed.values - tensor[changed.positions]
                output += difference
            else:
                matrix = corrections.difference(name, tensor, isinstance(self.module, Conv1D))
                found = torch.sparse.mm(matrix, given.reshape(-1, given.shape[-1]).float().t()).t()
                output += found.reshape(output.shape).to(output.dtype)


@contextmanager
def _written(
    module: nn.Module, names: Mapping[str, str], corrections: Corrections | None, args: tuple[Any, ...]
) -> Iterator[None]:
    """Within the block a layer's tensors hold what a task has there; then, bit for bit, what they held before."""
    entries: list[tuple[Tensor, Tensor, Tensor]] = []
    whole: list[tuple[Tensor, Tensor]] = []
    held = tensors_in(module)
    try:
        for attribute, name in names.items() if corrections is not None else ():
            tensor = held[attribute]
            if name in corrections.whole:
                whole.append((tensor, tensor.data))
                tensor.data = corrections.whole[name]
            elif name in corrections.changed:
                flat, changed = tensor.data.view(-1), _needed(module, corrections.changed[name], args)
                entries.append((flat, changed.positions, flat.index_select(0, changed.positions)))
                flat.scatter_(0, changed.positions, changed.values)
        yield
    finally:
        for flat, positions, old in entries:
            flat.scatter_(0, positions, old)
        for tensor, data in whole:
            tensor.data = data


def _needed(module: nn.Module, changed: Changed, args: tuple[Any, ...]) -> Changed:
    """Of a table of embeddings, the entries in rows that are looked up; of other layers all."""
    if type(module).forward is not nn.Embedding.forward or not args or args[0].numel() * 4 > module.weight.shape[0]:
        return changed
    return changed.of_rows(args[0].unique(), module.weight.shape[1])


def widths_of(layers: Sequence[MixedLayer]) -> list[dict[int, int]]:
    """For each row, the widest output that was filled up -> the width of the row's own."""
    rows = layers[0].parts[-1].stop if layers else 0
    found: list[dict[int, int]] = [{} for _ in range(rows)]
    for layer in layers:
        for row, width in enumerate(layer.widths):
            found[row][max(layer.widths)] = width
    return found


def trimmed(value: Any, widths: Mapping[int, int]) -> Any:
    """A row of a field without what a wider task's output added to it."""
    if isinstance(value, tuple):
        return tuple(trimmed(one, widths) for one in value)
    width = widths.get(value.shape[-1]) if value.dim() else None
    return value[..., :width] if width is not None and value[..., width:].isnan().all() else value


