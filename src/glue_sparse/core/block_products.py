"""Products of dense matrices with one that has active tiles only: y = x W^T + b and its gradients, on each device.

On a CPU: one product for each line of tiles, with what the tiles of that line multiply lying side by side. Tokens are
first cut into pieces, one for each column of tiles: one stretch of memory is copied and multiplied faster than a strip
of a wide matrix. On a GPU: kernels (`kernels/tile_products.py`). Elsewhere: one batched product over all tiles.
"""

import threading
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from glue_sparse.kernels import backend, tile_products


class Places(NamedTuple):
    """Where the k active tiles of a matrix lie; tiles are numbered row by row.

    Attributes:
        row_of, column_of: [k] each tile's row and column, counted in tiles.
        by_column: [k] numbers of the tiles, column by column.
        row_starts, column_starts: [lines + 1] int32, where the tiles of each row begin, of each column in `by_column`.
        num_rows, num_columns: tiles across the matrix.
        block_size: side of a tile, in entries.
    """

    row_of: Tensor
    column_of: Tensor
    by_column: Tensor
    row_starts: Tensor
    column_starts: Tensor
    num_rows: int
    num_columns: int
    block_size: int

    def rows(self) -> list[list[int]]:
        """The columns of the active tiles of each row of tiles, ascending."""
        return _lines(self.row_of, self.column_of, self.num_rows)

    def columns(self) -> list[list[int]]:
        """The rows of the active tiles of each column of tiles, ascending."""
        return _lines(self.column_of[self.by_column], self.row_of[self.by_column], self.num_columns)


def _lines(line_of: Tensor, place: Tensor, count: int) -> list[list[int]]:
    """What `place` holds for each line, where tiles come line by line."""
    lines: list[list[int]] = [[] for _ in range(count)]
    for line, number in zip(line_of.tolist(), place.tolist(), strict=True):
        lines[line].append(number)
    return lines


class _Scratch(threading.local):
    """Memory that calls leave behind for the next ones: fresh pages would cost as much time as a product."""

    def __init__(self) -> None:
        self.held: dict[str, Tensor] = {}

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor of any content on the CPU; the next one of that name is the same memory."""
        size = prod(shape) * dtype.itemsize
        if name not in self.held or self.held[name].numel() < size:
            with torch.inference_mode(False):  # or it could not be written to outside that mode
                self.held[name] = torch.empty(size, dtype=torch.uint8, device="cpu")
        return self.held[name][:size].view(dtype).view(*shape)


_scratch = _Scratch()
_MIN_FEATURES_LAST = 16
"""Side of a tile; with smaller ones products are faster where the tokens of one feature lie side by side."""


def forward(x: Tensor, tiles: Tensor, bias: Tensor | None, places: Places) -> Tensor:
    """[t, in] x, [k, b, b] tiles and [out] bias to [t, out] y, all of one type."""
    if backend.available(x.device, x.dtype):
        return tile_products.forward(x, tiles, bias, places)
    if x.device.type != "cpu":
        return forward_batched(x, tiles, bias, places)
    lines, block_size = places.rows(), places.block_size
    matrices = _stacked(tiles.transpose(1, 2), lines)
    pieces, room = _cut(x, block_size, "input"), _room(x, lines, block_size)
    y, parts = _space("output", x, len(lines), block_size)
    for i, line in enumerate(lines):
        if line:
            torch.mm(_gathered(pieces, line, room), matrices[i], out=parts[i])
        else:
            parts[i].zero_()
    return _joined(y) if bias is None else _joined(y).add_(bias)


def backward(
    grad: Tensor, x: Tensor | None, tiles: Tensor, places: Places, needs_x: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x, [t, in], if needed, and of the tiles, [k, b, b], if x is given, from that of y, [t, out].

    Both read the same pieces of `grad`, which are gathered once.
    """
    if backend.available(grad.device, grad.dtype):
        return tile_products.backward(grad, x, tiles, places, needs_x)
    if grad.device.type != "cpu":
        return backward_batched(grad, x, tiles, places, needs_x)
    lines, block_size = places.columns(), places.block_size
    matrices, by_column = _stacked(tiles[places.by_column], lines), tiles.new_empty(tiles.shape)
    grad_tiles = _stacked(by_column, lines)
    inputs = None if x is None else _cut(x, block_size, "input")
    pieces, room = _cut(grad, block_size, "gradient"), _room(grad, lines, block_size)
    grad_x, parts = _space("output", grad, len(lines) if needs_x else 0, block_size)
    for i, line in enumerate(lines):
        if line:
            gathered = _gathered(pieces, line, room)
            if needs_x:
                torch.mm(gathered, matrices[i], out=parts[i])
            if inputs:
                torch.mm(gathered.t(), inputs[i], out=grad_tiles[i])
        elif needs_x:
            parts[i].zero_()
    found = None
    if inputs:
        found = torch.empty_like(by_column)
        found[places.by_column] = by_column
    return _joined(grad_x) if needs_x else None, found


def _stacked(tiles: Tensor, lines: list[list[int]]) -> list[Tensor]:
    """[k, b, b] tiles, line by line, as one [n b, b] matrix for each line of n."""
    stacked = tiles.reshape(-1, tiles.shape[-1])
    return list(stacked.split([len(line) * tiles.shape[-1] for line in lines]))


def _space(name: str, like: Tensor, num_pieces: int, block_size: int) -> tuple[Tensor, Sequence[Tensor]]:
    """Scratch for n pieces [t, b], and all of it as [t, n, b], or as [t, n b] where features come first in memory."""
    if block_size < _MIN_FEATURES_LAST:
        store = _scratch.take(name, (num_pieces * block_size, len(like)), like.dtype).t()
        return store, store.split(block_size, 1)
    store = _scratch.take(name, (num_pieces, len(like), block_size), like.dtype)
    return store.transpose(0, 1), store.unbind(0)


def _cut(x: Tensor, block_size: int, name: str) -> Sequence[Tensor]:
    """[t, n b] to n pieces [t, b]."""
    store, pieces = _space(name, x, x.shape[1] // block_size, block_size)
    store.transpose(0, 1).copy_(x.view(store.shape).transpose(0, 1))  # this way round, torch has a fast transposition
    return pieces


def _joined(store: Tensor) -> Tensor:
    """What `_space` gave as [t, n b] in memory of its own."""
    return store.clone(memory_format=torch.contiguous_format).flatten(1)


def _room(x: Tensor, lines: list[list[int]], block_size: int) -> Tensor:
    """Space for the pieces of the longest line."""
    return _scratch.take("gathered", (len(x) * block_size * max(map(len, lines)),), x.dtype)


def _gathered(pieces: Sequence[Tensor], line: list[int], room: Tensor) -> Tensor:
    """The pieces of a line side by side, in the layout that they have."""
    first = pieces[line[0]]
    if len(line) == 1:
        return first
    tokens, width = len(first), len(line) * first.shape[1]
    space = room[: tokens * width]
    is_transposed = first.stride(0) == 1
    out = space.view(width, tokens).t() if is_transposed else space.view(tokens, width)
    return torch.cat([pieces[i] for i in line], 1, out=out)


def forward_batched(x: Tensor, tiles: Tensor, bias: Tensor | None, places: Places) -> Tensor:
    """As `forward`, on any device: one batched product, whose results are then summed by row."""
    pieces = _panels(x, places.block_size)
    products = torch.bmm(pieces[places.column_of], tiles.transpose(1, 2))
    y = _summed(products, places.row_of, places.num_rows)
    return y if bias is None else y.add_(bias)


def backward_batched(
    grad: Tensor, x: Tensor | None, tiles: Tensor, places: Places, needs_x: bool
) -> tuple[Tensor | None, Tensor | None]:
    """As `backward`, on any device."""
    gathered = _panels(grad, places.block_size)[places.row_of]
    grad_x = _summed(torch.bmm(gathered, tiles), places.column_of, places.num_columns) if needs_x else None
    if x is None:
        return grad_x, None
    return grad_x, torch.bmm(gathered.transpose(1, 2), _panels(x, places.block_size)[places.column_of])


def _panels(x: Tensor, block_size: int) -> Tensor:
    """[t, n b] to [n, t, b]."""
    return x.view(len(x), x.shape[1] // block_size, block_size).transpose(0, 1)


def _summed(products: Tensor, line_of: Tensor, num_lines: int) -> Tensor:
    """[k, t, b] products, summed by line, as [t, n b]; sums in the type of the products."""
    _, tokens, block_size = products.shape
    sums = products.new_zeros(num_lines, tokens, block_size).index_add_(0, line_of, products)
    return sums.transpose(0, 1).reshape(tokens, num_lines * block_size)
