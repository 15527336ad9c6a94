"""The layer that holds only active tiles, and what the benchmark works out from times."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from glue_sparse import BlockSparseLinear
from glue_sparse.benchmarks import tiles as block_benchmark
from glue_sparse.core import tiles
from tile_masks import tile_mask


def test_a_layer_of_tiles_is_the_linear_layer_it_came_from():
    linear = nn.Linear(24, 16)
    mask = tiles.spread(tile_mask(2, 3), 8)
    layer, x = BlockSparseLinear.from_linear(linear, mask, 8), torch.randn(2, 5, 24)
    assert [tuple(p.shape) for p in layer.parameters()] == [(int(mask.sum()) // 64, 8, 8), (16,)]
    torch.testing.assert_close(layer(x), F.linear(x, linear.weight * mask, linear.bias))
    back = layer.to_linear()
    assert torch.equal(back.weight, linear.weight * mask) and torch.equal(back.bias, linear.bias)
    assert torch.equal(layer.mask(), mask)
    found = BlockSparseLinear.from_linear(back, block_size=8)  # its tiles that are not zero
    assert torch.equal(found.positions, layer.positions)
    assert BlockSparseLinear.from_linear(nn.Linear(8, 8, bias=False), None, 4).bias is None
    assert "2 tiles" in repr(BlockSparseLinear(tiles.spread(torch.eye(2).bool(), 4), 4))


def test_tiles_move_with_their_values_and_optimizer_state():
    layer = BlockSparseLinear(tiles.spread(torch.tensor([[1, 1, 0], [0, 1, 0]]).bool(), 4), 4)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01)
    x = torch.randn(6, 12)

    def step() -> None:
        layer(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    alive = layer(x)  # a graph of the old tiles
    before, state = layer.tiles.detach().clone(), {k: v.clone() for k, v in optimizer.state[layer.tiles].items()}
    layer.move(tiles.spread(torch.tensor([[0, 1, 1], [1, 1, 0]]).bool(), 4), optimizer)
    # tiles 0, 1, 4 became 1, 2, 3, 4
    assert layer.positions.tolist() == [1, 2, 3, 4]
    assert torch.equal(layer.tiles[[0, 3]], before[[1, 2]]) and not layer.tiles[[1, 2]].any()
    moved = optimizer.state[layer.tiles]
    assert torch.equal(moved["exp_avg"][[0, 3]], state["exp_avg"][1:]) and not moved["exp_avg"][[1, 2]].any()
    assert torch.equal(moved["exp_avg_sq"][[0, 3]], state["exp_avg_sq"][1:])
    torch.testing.assert_close(moved["exp_avg_sq"][1], state["exp_avg_sq"][1:].mean().expand(4, 4))
    assert moved["step"] == 1
    torch.testing.assert_close(layer(x), layer.to_linear()(x))
    del alive
    step()
    assert layer.tiles[[1, 2]].all()
    layer.move(tiles.spread(torch.tensor([[1, 0, 0], [0, 0, 0]]).bool(), 4), optimizer)
    assert layer.tiles not in optimizer.state  # nothing survived
    step()


def test_a_layer_with_no_tiles_is_its_bias():
    layer = BlockSparseLinear(torch.zeros(8, 4).bool(), 4)
    x = torch.randn(3, 4, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert torch.equal(y[0], layer.bias) and x.grad is not None and not x.grad.any()  # pyright: ignore


def test_layers_are_saved_copied_and_cast():
    first = BlockSparseLinear(tiles.spread(tile_mask(2, 3), 4), 4)
    second = BlockSparseLinear(tiles.spread(tile_mask(3, 4, seed=1)[:2, :3], 4), 4)
    x = torch.randn(2, 12)
    second(x)
    assert not torch.equal(first.positions, second.positions)
    assert not second.load_state_dict(first.state_dict()).missing_keys
    assert torch.equal(second(x), first(x)) and second.positions is not first.positions
    twin = copy.deepcopy(first)
    assert torch.equal(twin(x), first(x)) and twin.tiles is not first.tiles
    torch.testing.assert_close(twin.double()(x.double()), first(x).double())
    assert twin.positions.dtype == torch.int64
    assert first.to(torch.bfloat16)(x.to(torch.bfloat16)).dtype == torch.bfloat16


def test_tiles_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="tiles of 5x5 do not divide the weight, a matrix of 6x10"):
        BlockSparseLinear.from_linear(nn.Linear(10, 6), block_size=5)
    with pytest.raises(ValueError, match="not made of whole tiles"):
        BlockSparseLinear(torch.eye(4).bool(), 2)
    with pytest.raises(ValueError, match=r"the mask is \(4, 4\), the weight \(4, 8\)"):
        BlockSparseLinear.from_linear(nn.Linear(8, 4), torch.ones(4, 4).bool(), 2)
    layer = BlockSparseLinear(torch.ones(4, 4).bool(), 2)
    with pytest.raises(ValueError, match=r"the mask is \(4, 8\), the matrix \(4, 4\)"):
        layer.move(torch.ones(4, 8).bool())


def test_ratios_of_work_and_break_even_sparsities():
    base = block_benchmark.flops_ratio(768, 0.1)
    assert round(base, 4) == round(8.3349 / 67.0424, 4)  # BERT-Base at 0.9 in the paper's FLOPs
    cells = [
        block_benchmark.Cell("4 x 4", (4, 4), torch.float32, 16, sparsity, 1.0, 1.5, seconds)
        for sparsity, seconds in ((0.75, 1.5), (0.9, 0.5), (0.95, 0.3))
    ]
    assert block_benchmark.break_even(cells) == "0.82"  # half way from 0.75 to 0.9
    assert block_benchmark.break_even(cells[1:]) == "<= 0.9"
    assert block_benchmark.break_even(cells[:1]) == "> 0.75"
    header, lines = block_benchmark.layer_table(cells)
    assert len(lines) == 1 and len(header) == len(lines[0])
    assert lines[0][3:] == ["1.50", "0.50", "0.30", "1.00", "0.33", "0.20", "6.0", "5.0", "6.0", "0.82"]
