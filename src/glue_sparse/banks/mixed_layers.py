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

_LINEAR = (nn.Linear.forward, Conv1D.forward)


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
        self.linear = module if isinstance(module, nn.Linear | Conv1D) and type(module).forward in _LINEAR else None
        self.widths: list[int] = []
        """Of each row's output where they differ; narrower ones are filled up with NaN."""
        self.is_called = False

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        self.is_called = True
        self._check(args, kwargs)
        adds = [self._adds(part, args) for part in self.parts]
        pieces = self._pieces(adds)
        if self.linear is not None and self._is_plain(self.linear, pieces, args):
            output = self._products(self.linear, pieces, args[0])
        else:
            output = self._joined([self._piece(piece, args, kwargs) for piece in pieces])
        for part, added in zip(self.parts, adds, strict=True):
            if added and part.corrections is not None:
                self._add(output[part.start : part.stop], args[0][part.start : part.stop], part.corrections)
        return output

    def _check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        sizes, rows = first_axes(args, kwargs), self.parts[-1].stop
        if any(sizes.get(key) != rows for key in self.layout.split):
            name = next(iter(self.names.values()))
            raise CannotMix(f"the layer of {name} was given tensors whose first axis is not that of the {rows} rows")

    def _whole(self, part: Part) -> list[str]:
        """Attributes that the part's task holds whole."""
        held = part.corrections.whole if part.corrections else {}
        return [attribute for attribute, name in self.names.items() if name in held]

    def _changes(self, part: Part) -> bool:
        return part.corrections is not None and any(name in part.corrections for name in self.names.values())

    def _adds(self, part: Part, args: tuple[Any, ...]) -> bool:
        """Whether the part's sparse product is added to the dense one of the base."""
        if self.linear is None or self.layout.split != {0} or not self._changes(part) or "weight" in self._whole(part):
            return False
        return (part.stop - part.start) * args[0][0].numel() // args[0].shape[-1] < FEW

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
        with written(self.module, self.names, piece.corrections, args):
            output = self.forward(*args, **kwargs)
        if self.layout.is_shared:
            return output.expand(piece.stop - piece.start, *output.shape[1:])
        return output

    def _is_plain(self, linear: nn.Linear | Conv1D, pieces: Sequence[Part], args: tuple[Any, ...]) -> bool:
        """Whether the products of several pieces are of one width, and in the types that tensors have."""
        if len(pieces) < 2 or self.layout.split != {0} or args[0].dtype != linear.weight.dtype:
            return False
        return not torch.is_autocast_enabled(args[0].device.type) and not any(
            "weight" in self._whole(piece) for piece in pieces
        )

    def _products(self, linear: nn.Linear | Conv1D, pieces: Sequence[Part], given: Tensor) -> Tensor:
        """[rows, ..., outputs], each piece's product written where it belongs instead of being copied there."""
        inputs, outputs = linear.weight.shape if isinstance(linear, Conv1D) else linear.weight.shape[::-1]
        found = given.new_empty(*given.shape[:-1], outputs)
        flat, into = given.reshape(-1, inputs), found.view(-1, outputs)
        each = len(flat) // len(given)
        for piece in pieces:
            at = slice(piece.start * each, piece.stop * each)
            with written(linear, self.names, piece.corrections, ()):
                weight = linear.weight if isinstance(linear, Conv1D) else linear.weight.t()
                if linear.bias is None:
                    torch.mm(flat[at], weight, out=into[at])
                else:
                    torch.addmm(linear.bias, flat[at], weight, out=into[at])
        return found

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
            tensor = tensors_in(self.module)[attribute]
            if name in corrections.whole:
                output += corrections.whole[name] - tensor
            elif name in corrections.changed and tensor.dim() == 1:
                changed = corrections.changed[name]
                output += tensor.index_copy(0, changed.positions, changed.values) - tensor
            elif name in corrections.changed:
                matrix = corrections.difference(name, tensor, isinstance(self.linear, Conv1D))
                with torch.autocast(given.device.type, enabled=False):  # sparse products are of float32 alone
                    found = torch.sparse.mm(matrix, given.reshape(-1, given.shape[-1]).float().t()).t()
                output += found.reshape(output.shape).to(output.dtype)


@contextmanager
def written(
    module: nn.Module, names: Mapping[str, str], corrections: Corrections | None, args: tuple[Any, ...]
) -> Iterator[None]:
    """Within the block a layer's tensors hold what a task has there; then, bit for bit, what they held before.

    Args:
        names: attribute -> name of the tensor.
        args: what the layer is given; of embeddings that are few only their entries are written.
    """
    entries: list[tuple[Tensor, Tensor, Tensor]] = []
    whole: list[tuple[Tensor, Tensor]] = []
    held = tensors_in(module)
    try:
        for attribute, name in names.items():
            if corrections is not None and name in corrections.whole:
                whole.append((held[attribute], held[attribute].data))
                held[attribute].data = corrections.whole[name]
            elif corrections is not None and name in corrections.changed:
                flat, changed = held[attribute].data.view(-1), _needed(module, corrections.changed[name], args)
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
    if not isinstance(module, nn.Embedding) or type(module).forward is not nn.Embedding.forward or not args:
        return changed
    rows, width = module.weight.shape
    return changed if args[0].numel() > rows // 4 else changed.of_rows(args[0].unique(), width)


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


def has_nan(value: Any) -> bool:
    """Whether anything in a row is NaN, as what was filled up makes of all that is computed with it."""
    return any(map(has_nan, value)) if isinstance(value, tuple) else bool(value.isnan().any())
