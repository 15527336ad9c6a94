"""Kernels run by Triton's interpreter, against plain products; test_kernels.py starts this in a process of its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

import interpreted
from glue_sparse.core import block_products, block_sparse, operators, patterns, sampled_trial, tiles
from glue_sparse.core.active import active_tensors, attach
from glue_sparse.core.block_layer import BlockSparseLinear
from glue_sparse.core.parametrization import original
from glue_sparse.kernels import entries, sampled, tile_products

interpreted.install()
TOLERANCE: dict[torch.dtype, dict[str, Any]] = {
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.bfloat16: {"rtol": 1e-2, "atol": 1e-2},  # sums are float32, and rounded once
    torch.float16: {"rtol": 1e-3, "atol": 2e-3},
}
HOLES = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]).bool()
"""A row and a column of tiles are empty."""
NONE, ONE = torch.zeros(2, 3).bool(), torch.ones(1, 1).bool()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


launched = pytest.fixture(interpreted.launched)


def dense(mask: Tensor, held: Tensor) -> Tensor:
    """[rows b, columns b] float32 with these tiles."""
    size, (rows, columns) = held.shape[-1], mask.shape
    full = torch.zeros(rows * columns, size, size)
    full[mask.flatten()] = held.float()
    return full.view(rows, columns, size, size).transpose(1, 2).reshape(rows * size, columns * size)


@pytest.mark.parametrize("mask, size, dtype, tokens", [
    (HOLES, 8, torch.float32, 37),
    (HOLES, 16, torch.float32, 1),
    (HOLES, 16, torch.bfloat16, 37),
    (HOLES, 16, torch.float32, 130),  # sums over two parts of the tokens
    (HOLES, 16, torch.bfloat16, 130),
    (HOLES, 16, torch.float32, 0),
    (HOLES, 24, torch.float32, 50),
    (HOLES, 32, torch.float16, 5),
    (HOLES, 64, torch.bfloat16, 33),
    (HOLES[:1], 128, torch.float32, 17),
    (ONE, 16, torch.float32, 3),
    (NONE, 16, torch.float32, 3),
])  # fmt: skip
def test_products_and_gradients_equal_dense_ones(
    mask: Tensor, size: int, dtype: torch.dtype, tokens: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tile_products, "_LEAST_TOKENS", 64)
    places = block_sparse.plan_of(mask, size).places
    held, bias = torch.randn(int(mask.sum()), size, size).to(dtype), torch.randn(len(mask) * size).to(dtype)
    x = torch.randn(tokens, mask.shape[1] * size).to(dtype)
    grad = torch.randn(tokens, len(mask) * size).to(dtype)
    weight, how = dense(mask, held), TOLERANCE[dtype]
    y = tile_products.forward(x, held, bias, places)
    torch.testing.assert_close(y, F.linear(x.float(), weight, bias.float()).to(dtype), **how)
    grad_x, grad_tiles = tile_products.backward(grad, x, held, places, True)
    torch.testing.assert_close(grad_x, (grad.float() @ weight).to(dtype), **how)
    expected = (grad.float().t() @ x.float()).view(len(mask), size, mask.shape[1], size).transpose(1, 2)[mask]
    assert grad_tiles is not None and grad_tiles.dtype == dtype
    torch.testing.assert_close(grad_tiles, expected.to(dtype), rtol=how["rtol"], atol=how["atol"] * 4)


def test_only_wanted_gradients_are_made(launched: list[str]):
    places, held = block_sparse.plan_of(ONE, 16).places, torch.randn(1, 16, 16)
    assert torch.equal(tile_products.forward(torch.zeros(3, 16), held, None, places), torch.zeros(3, 16))
    launched.clear()
    assert tile_products.backward(torch.randn(3, 16), None, held, places, True)[1] is None
    assert tile_products.backward(torch.randn(3, 16), torch.randn(3, 16), held, places, False)[0] is None
    assert launched == ["line_product", "tile_gradients"]


def passes(layer: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """The output, the gradient of the inputs, and those of what trains, from that of the output."""
    x = x.detach().requires_grad_()
    with block_sparse.execution("tiles"):
        y = layer(x)
    y.backward(grad)
    found = [y.detach(), x.grad, *(p.grad for p in layer.parameters() if p.requires_grad)]
    layer.zero_grad()
    return [one.clone() for one in found if one is not None]


def block_layer() -> nn.Module:
    return BlockSparseLinear(tiles.spread(HOLES, 16), 16)


def masked_layer() -> nn.Module:
    layer = nn.Linear(64, 48)
    attach(layer, {"weight": tiles.spread(HOLES, 16)}, "zero", 16)
    return layer


@pytest.mark.parametrize("make", [block_layer, masked_layer])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_are_those_of_the_plain_path(make: Callable[[], nn.Module], dtype: torch.dtype, launched: list[str]):
    layer = make().to(dtype)
    for x in (torch.randn(2, 5, 64), torch.randn(64, 7).t()):
        grad = torch.randn(*x.shape[:-1], 48).to(dtype)
        found = passes(layer, x.to(dtype), grad)
        assert {"line_product", "tile_gradients"} <= {*launched}
        count = len(launched)
        with interpreted.without_kernels():
            expected = passes(layer, x.to(dtype), grad)
        assert len(launched) == count and len(found) == len(expected) == 4
        most = 1e-4 if dtype == torch.float32 else 3e-2  # both are rounded
        torch.testing.assert_close(found, expected, rtol=most, atol=most)


@pytest.mark.parametrize("pays", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("few_inputs", [True, False])
@pytest.mark.parametrize("make", [lambda: nn.Linear(40, 24), lambda: Conv1D(24, 40)])
def test_gradients_at_active_entries_are_those_of_the_plain_path(
    make: Callable[[], nn.Module], few_inputs: bool, dtype: torch.dtype, pays: bool, launched: list[str],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(sampled_trial, "max_density", lambda *kind: float(pays))
    layer: Any = make().to(dtype)
    x, grad = torch.randn(3, 5, 40).to(dtype), torch.randn(3, 5, 24).to(dtype)
    inputs = torch.arange(40) % 4 == 1 if few_inputs else torch.ones(40, dtype=torch.bool)
    mask = (torch.rand(24, 40) < 0.2) & inputs
    mask = mask.t().contiguous() if isinstance(layer, Conv1D) else mask
    layer(x).backward(grad)
    weight_grad, bias_grad = (one.grad for one in (layer.weight, layer.bias))
    assert weight_grad is not None and bias_grad is not None
    expected = weight_grad[mask].float(), bias_grad.clone()
    layer.zero_grad()
    attach(layer, {"weight": mask})
    layer(x).backward(grad)
    found = next(active_tensors(layer))[1].values.grad, layer.bias.grad
    assert ("sampled_product" in launched) == pays
    most = 1e-4 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(found, expected, rtol=most, atol=most)


def test_other_types_are_left_to_the_plain_path(launched: list[str]):
    places, held = block_sparse.plan_of(ONE, 16).places, torch.randn(1, 16, 16).double()
    x = torch.randn(3, 16).double()
    assert torch.equal(block_products.forward(x, held, None, places), x @ held[0].t()) and not launched


PATTERNS = {
    "many": torch.rand(50, 33, generator=torch.Generator().manual_seed(0)) < 0.05,
    "one": torch.arange(50 * 33).view(50, 33) == 77,
    "none": torch.zeros(50, 33).bool(),
    "all": torch.ones(3, 5).bool(),
}


@pytest.mark.parametrize("name, dtype, tokens, most", [
    ("many", torch.bfloat16, 129, 1 << 20),
    ("one", torch.float32, 250, 100 * (50 + 33)),  # pieces of 100 tokens
    ("many", torch.float32, 1100, 1 << 20),  # two parts of the tokens
    ("many", torch.float32, 1, 1 << 20),
    ("many", torch.float32, 0, 1 << 20),
    ("one", torch.float16, 7, 1 << 20),
    ("none", torch.float32, 7, 1 << 20),
    ("all", torch.float32, 7, 1 << 20),
])  # fmt: skip
def test_sampled_products(name: str, dtype: torch.dtype, tokens: int, most: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sampled, "_MOST_COPIED", most)
    monkeypatch.setattr(sampled, "_LEAST_TOKENS", 1)
    mask = PATTERNS[name]
    indices, (rows, columns) = mask.flatten().nonzero().squeeze(1), mask.shape
    starts = torch.searchsorted(indices, torch.arange(0, (rows + 1) * columns, columns)).int()
    grad, x = torch.randn(rows, tokens).to(dtype).t(), torch.randn(tokens, columns).to(dtype)
    found = sampled.sampled_product(grad, x, starts, (indices % columns).int())
    expected = (grad.float().t() @ x.float()).flatten()[indices]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found, sampled.sampled_product(grad, x, starts, (indices % columns).int()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_entries_are_written_and_read(dtype: torch.dtype, kind: torch.dtype):
    weights = [torch.randn(*shape).to(dtype) for shape in ((100, 30), (7,), (2, 3))]
    indices = [torch.randperm(w.numel())[:k].sort().values.to(kind) for w, k in zip(weights, (1500, 1, 0), strict=True)]
    values = [torch.randn(len(one)) for one in indices]
    expected = [weight.clone() for weight in weights]
    for weight, places, new in zip(expected, indices, values, strict=True):
        weight.view(-1)[places.long()] = new.to(dtype)
    singly = [weight.clone() for weight in weights]
    for weight, places, new in zip(singly, indices, values, strict=True):
        entries.write(weight, places, new)
    entries.write_all([*zip(weights, indices, values, strict=True)])
    for one, two, other, places in zip(singly, weights, expected, indices, strict=True):
        assert torch.equal(one, other) and torch.equal(two, other)
        assert torch.equal(entries.read(two, places), other.view(-1)[places.long()].float())


def test_operators_write_and_read_by_kernels_where_they_fit(launched: list[str]):
    weight, places, values = torch.zeros(4, 4), torch.tensor([1, 6]).int(), torch.tensor([2.0, 3.0])
    operators.write(weight, places, values)
    assert launched == ["write"] and weight.flatten()[places.long()].equal(values) and weight.sum() == 5
    assert operators.read(weight.t(), places, torch.float64).tolist() == [0, 0] and launched == ["write", "read"]
    operators.write(weight, places, torch.tensor(7.0))  # one for all
    assert operators.read(weight.long(), places, torch.float32).tolist() == [7, 7] and launched == ["write", "read"]
    with operators.writing_together():
        operators.write(weight, places, values)
        assert launched == ["write", "read"]
    assert launched == ["write", "read", "write_all"] and weight.sum() == 5


def test_a_step_writes_all_tensors_at_once_and_leaves_the_same_bits(
    launched: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(patterns, "_pattern", lambda entries, inputs: None)  # gradients are dense, of the same bits

    def trained() -> list[Tensor]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 10)).bfloat16()
        attach(model, {"0.weight": torch.rand(30, 20) < 0.2, "2.weight": torch.rand(10, 30) < 0.2})
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(2):
            model(torch.randn(6, 20).bfloat16()).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        held = [entries.values.detach() for _, entries in active_tensors(model)]
        return [*held, *(original(model, name) for name, _ in active_tensors(model))]

    found = trained()
    assert launched.count("write_all") == 2
    with interpreted.without_kernels():
        expected = trained()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
