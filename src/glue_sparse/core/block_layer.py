"""A linear layer that holds only the active tiles of its weight."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from glue_sparse.core import block_sparse, tiles
from glue_sparse.core.reindexing import carry_over


class BlockSparseLinear(nn.Module):
    """y = x W^T + b, where W is zero but for active tiles of b x b entries, and only those exist.

    Weights, gradients and optimizer state take k b^2 numbers each, and products the share of a dense layer's operations
    that is active, forward and backward.

    Args:
        mask: [out, in] bool, made of whole tiles.
        block_size: b, which divides both sides.
        bias: whether there is one.
    Attributes:
        tiles: [k, b, b] parameter, row by row.
        positions: [k] int64 buffer, sorted; tile (i, j) is number i * (in / b) + j.
        bias: [out] parameter, or None.
    Raises:
        ValueError: tiles that do not cover the matrix, or a mask that is not made of them.
    """

    positions: Tensor

    def __init__(
        self,
        mask: Tensor,
        block_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        positions = _positions(mask, block_size)
        self.out_features, self.in_features = mask.shape
        self.block_size = block_size
        bound = self.in_features**-0.5
        size = (len(positions), block_size, block_size)
        self.tiles = nn.Parameter(torch.empty(size, device=device, dtype=dtype).uniform_(-bound, bound))
        self.bias = (
            nn.Parameter(torch.empty(self.out_features, device=device, dtype=dtype).uniform_(-bound, bound))
            if bias
            else None
        )
        self.register_buffer("positions", positions.to(self.tiles.device))
        self._arrange()

    @classmethod
    def from_linear(cls, linear: nn.Linear, mask: Tensor | None = None, block_size: int = 16) -> Self:
        """A layer with a linear layer's weights in its active tiles; copies.

        Args:
            mask: [out, in] bool; by default all tiles that hold an entry other than zero are active.
        """
        weight = linear.weight.detach()
        if mask is None:
            tiles.check("the weight", weight.shape, block_size)
            mask = tiles.spread(tiles.pooled(weight, block_size, "linf") > 0, block_size)
        if mask.shape != weight.shape:
            raise ValueError(f"the mask is {tuple(mask.shape)}, the weight {tuple(weight.shape)}")
        layer = cls(mask, block_size, linear.bias is not None, weight.device, weight.dtype)
        with torch.no_grad():
            layer.tiles.copy_(layer._split(weight)[layer.positions])
            if linear.bias is not None and layer.bias is not None:
                layer.bias.copy_(linear.bias)
        return layer.train(linear.training)

    @torch.no_grad()
    def to_linear(self) -> nn.Linear:
        """An ordinary layer with the same weights and zeros elsewhere; copies."""
        held = self.tiles
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, held.device, held.dtype)
        dense = held.new_zeros(self.num_tiles, self.block_size, self.block_size)
        dense[self.positions] = held
        across = self.in_features // self.block_size
        dense = dense.view(-1, across, self.block_size, self.block_size).transpose(1, 2)
        linear.weight.copy_(dense.reshape(self.out_features, self.in_features))
        if linear.bias is not None and self.bias is not None:
            linear.bias.copy_(self.bias)
        return linear.train(self.training)

    @property
    def num_tiles(self) -> int:
        """Tiles of the matrix, active or not."""
        return self.out_features * self.in_features // self.block_size**2

    def mask(self) -> Tensor:
        """Which entries are active, [out, in] bool."""
        found = torch.zeros(self.num_tiles, dtype=torch.bool, device=self.positions.device)
        found[self.positions] = True
        return tiles.spread(found.view(-1, self.in_features // self.block_size), self.block_size)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return block_sparse.linear(x, self.tiles, self._plan, self.bias)

    @torch.no_grad()
    def move(self, mask: Tensor, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Make other tiles the active ones, between optimizer steps; survivors keep their values, entrants are zero.

        Optimizer state is carried over as by `reindex`; `tiles` stays the same parameter.

        Raises:
            ValueError: another shape than the matrix, or a mask that is not made of whole tiles; nothing is changed.
        """
        if mask.shape != (self.out_features, self.in_features):
            raise ValueError(f"the mask is {tuple(mask.shape)}, the matrix {(self.out_features, self.in_features)}")
        old, new = self.positions, _positions(mask, self.block_size).to(self.positions.device)
        survives, remains = torch.isin(new, old), torch.isin(old, new)
        values = self.tiles.new_zeros(len(new), self.block_size, self.block_size)
        values[survives] = self.tiles[remains]
        self._hold(new, values)
        if optimizer is not None:
            carry_over(optimizer, self.tiles, survives, remains)

    def _hold(self, positions: Tensor, values: Tensor) -> None:
        if values.shape != self.tiles.shape:
            # as in `ActiveEntries.move`: a node of a graph that is alive would remember the old size
            self.tiles.data = values.to(torch.float32 if values.dtype == torch.float64 else torch.float64)
        self.tiles.data, self.tiles.grad = values, None
        self.positions = positions
        self._arrange()

    def _arrange(self) -> None:
        """Make the plan of the products: when tiles change, so that torch.compile finds it."""
        rows, columns = self.out_features // self.block_size, self.in_features // self.block_size
        self._plan = block_sparse.Plan(self.positions, rows, columns, self.block_size)

    def _split(self, matrix: Tensor) -> Tensor:
        """[out, in] to all tiles, [num_tiles, b, b]."""
        size = self.block_size
        split = matrix.reshape(self.out_features // size, size, self.in_features // size, size)
        return split.transpose(1, 2).reshape(-1, size, size)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stored = state_dict.get(f"{prefix}positions")
        if stored is not None and not torch.equal(stored.cpu(), self.positions.cpu()):
            size = (len(stored), self.block_size, self.block_size)
            self._hold(stored.to(self.positions.device, copy=True), self.tiles.data.new_zeros(size))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._arrange()
        return self

    def extra_repr(self) -> str:
        """What `repr` shows: sizes, and how many tiles are active."""
        share = len(self.positions) / self.num_tiles
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, block_size={self.block_size}, "
            f"{len(self.positions):,} tiles ({share:.1%}), bias={self.bias is not None}"
        )


def _positions(mask: Tensor, block_size: int) -> Tensor:
    tiles.check("the mask", mask.shape, block_size)
    return tiles.gathered(mask, block_size).flatten().nonzero().squeeze(1)
