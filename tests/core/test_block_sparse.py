"""Products with active tiles alone: against dense ones, and inside trained models."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glue_sparse.core import block_products, block_sparse, tiles
from glue_sparse.core.active import ActiveEntries, active_tensors, attach, current_masks
from glue_sparse.core.masks import Masks, select
from glue_sparse.core.parametrization import detach, original
from glue_sparse.core.randomness import seeded
from glue_sparse.core.reindexing import reindex
from networks import bert, collate, examples
from tile_masks import tile_mask

LAYOUTS = [(2, torch.float64), (8, torch.float32), (16, torch.float32), (32, torch.float32), (16, torch.bfloat16)]
"""Sizes of tiles and types that cut tokens into pieces in each of the ways there are."""


def tolerance(dtype: torch.dtype) -> dict[str, Any]:
    return {"rtol": 5e-2, "atol": 0.3} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}


def test_one_product_by_hand():
    # W = [[0 0 1 2]
    #      [0 0 3 4]]
    plan = block_sparse.plan_of(torch.tensor([[False, True]]), 2)
    held = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]], requires_grad=True)
    x = torch.tensor([[9.0, 9.0, 3.0, 4.0]], requires_grad=True)
    y = block_sparse.linear(x, held, plan, torch.tensor([10.0, 20.0]))
    assert y.tolist() == [[10 + 3 + 8, 20 + 9 + 16]]
    (y * torch.tensor([1.0, 2.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0, 0, 1 + 6, 2 + 8]]
    assert held.grad is not None and held.grad.tolist() == [[[3, 4], [6, 8]]]


@pytest.mark.parametrize("block_size, dtype", LAYOUTS)
@pytest.mark.parametrize("size", [(3, 5), (4, 2), (1, 1), (1, 3)])
@pytest.mark.parametrize("lead", [(7,), (2, 3), (1,), (0,)])
def test_products_and_gradients_equal_dense_ones(
    block_size: int, dtype: torch.dtype, size: tuple[int, int], lead: tuple[int, ...]
):
    mask = tile_mask(*size)
    spread = tiles.spread(mask, block_size)
    weight = (torch.randn(spread.shape, dtype=dtype) * spread).requires_grad_()
    plan, indices = block_sparse.plan_of(mask, block_size), spread.flatten().nonzero().squeeze(1)
    of_entries = block_sparse.EntriesPlan(plan, *plan.runs())
    values = weight.detach().flatten()[indices].requires_grad_()
    x = torch.randn(*lead, spread.shape[1], dtype=dtype, requires_grad=True)
    grad = torch.randn(*lead, spread.shape[0], dtype=dtype)
    bias = torch.randn(spread.shape[0], dtype=dtype, requires_grad=True)
    for part in (None, bias):
        dense = F.linear(x, weight, part)
        y = block_sparse.linear_of_entries(x, values, dtype, of_entries, part)
        torch.testing.assert_close(y, dense, **tolerance(dtype))
        inputs = [] if part is None else [part]
        expected = torch.autograd.grad(dense, [x, weight, *inputs], grad)
        found = torch.autograd.grad(y, [x, values, *inputs], grad)
        torch.testing.assert_close(found[1], expected[1].flatten()[indices], **tolerance(dtype))
        torch.testing.assert_close(found[::2], expected[::2], **tolerance(dtype))


def test_the_products_of_other_devices_equal_those_of_a_cpu():
    mask, size = tile_mask(4, 3), 8
    places = block_sparse.plan_of(mask, size).places
    held, bias = torch.randn(int(mask.sum()), size, size), torch.randn(4 * size)
    x, grad = torch.randn(6, 3 * size), torch.randn(6, 4 * size)
    for part in (None, bias):
        here = block_products.forward(x, held, part, places)
        torch.testing.assert_close(block_products.forward_batched(x, held, part, places), here)
    for inputs, needs_x in ((x, True), (None, True), (x, False)):
        here = block_products.backward(grad, inputs, held, places, needs_x)
        there = block_products.backward_batched(grad, inputs, held, places, needs_x)
        for first, second, is_there in zip(here, there, (needs_x, inputs is not None), strict=True):
            assert (first is not None) == (second is not None) == is_there
            torch.testing.assert_close(first, second)


def test_only_wanted_gradients_are_made(monkeypatch: pytest.MonkeyPatch):
    plan = block_sparse.plan_of(tile_mask(2, 2), 8)
    wanted: list[tuple[bool, bool]] = []
    real = block_products.backward

    def noted(grad: Tensor, x: Tensor | None, held: Tensor, places: Any, needs_x: bool) -> Any:
        wanted.append((needs_x, x is not None))
        return real(grad, x, held, places, needs_x)

    monkeypatch.setattr(block_products, "backward", noted)
    for number in range(3):
        inputs = [torch.randn(3, 16), torch.randn(plan.num_tiles, 8, 8), torch.randn(16)]
        inputs[number].requires_grad_()
        block_sparse.linear(inputs[0], inputs[1], plan, inputs[2]).sum().backward()
        assert [tensor.grad is not None for tensor in inputs] == [i == number for i in range(3)]
    assert wanted == [(True, False), (False, True)]


def test_results_do_not_share_memory_and_inputs_may_lie_anyhow():
    for block_size, dtype in LAYOUTS:
        plan = block_sparse.plan_of(torch.tensor([[True]]), block_size)
        held = torch.randn(1, block_size, block_size, dtype=dtype)
        first = torch.randn(block_size, 1, dtype=dtype).expand(-1, 4).t()  # all tokens are the same memory
        with torch.inference_mode():
            y = block_sparse.linear(first, held, plan)
            before = y.clone()
        block_sparse.linear(torch.randn(4, block_size, dtype=dtype), held, plan)
        assert torch.equal(y, before)
        torch.testing.assert_close(before, first @ held[0].t(), **tolerance(dtype))


def test_types_under_autocast_are_those_of_linear():
    mask = tile_mask(3, 3)
    plan, layer = block_sparse.plan_of(mask, 16), nn.Linear(48, 48)
    held = layer.weight.detach().view(3, 16, 3, 16).transpose(1, 2)[mask].requires_grad_()
    x = torch.randn(5, 48, requires_grad=True)
    bias = nn.Parameter(layer.bias.detach().clone())
    with torch.autocast("cpu", torch.bfloat16):
        y = block_sparse.linear(x, held, plan, bias)
        dense = F.linear(x, layer.weight * tiles.spread(mask, 16), layer.bias)
    assert y.dtype == dense.dtype == torch.bfloat16
    torch.testing.assert_close(y, dense, rtol=2e-2, atol=2e-2)
    y.sum().backward()
    assert [tensor.grad.dtype for tensor in (x, held, bias)] == [torch.float32] * 3  # pyright: ignore


def test_inputs_of_another_width_are_refused():
    plan = block_sparse.plan_of(tile_mask(2, 3), 4)
    with pytest.raises(ValueError, match="8 features do not fit a matrix of 12"):
        block_sparse.linear(torch.randn(2, 8), torch.randn(plan.num_tiles, 4, 4), plan)


def encoder(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if "encoder" in name and p.dim() == 2]


def tiled(model: nn.Module, seed: int, block_size: int = 8, share: float = 0.5) -> Masks:
    """Random tiles of the encoder's matrices."""
    scores = {n: torch.rand(model.get_parameter(n).shape, generator=seeded(seed, n)) for n in encoder(model)}
    budget = {n: max(1, int(s.numel() // block_size**2 * share)) * block_size**2 for n, s in scores.items()}
    return select(scores, budget, block_size=block_size)


def train(way: block_sparse.Execution, dtype: torch.dtype | None = None) -> tuple[nn.Module, Any, list[float]]:
    """Ten steps with two moves of the active tiles and an evaluation; its model, optimizer and losses."""
    plain, model = bert(), bert(attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)
    attach(model, tiled(plain, 0), "zero", 8)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    losses = []
    with block_sparse.execution(way):
        for step in range(10):
            batch = collate(examples(8, seed=step))
            with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
                loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
            if step in (3, 6):
                reindex(model, tiled(plain, step), optimizer)
        with torch.no_grad():
            losses.append(float(model(**collate(examples(8, seed=99))).loss))
    return model, optimizer, losses


def test_training_by_tiles_equals_training_with_masks():
    (by_tiles, first, found), (masked, second, expected) = train("tiles"), train("masked")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for (name, entries), (_, others) in zip(active_tensors(by_tiles), active_tensors(masked), strict=True):
        assert torch.equal(entries.indices, others.indices)
        torch.testing.assert_close(entries.values, others.values, rtol=1e-3, atol=1e-5, msg=name)
        moments = [steps.state[e.values]["momentum_buffer"] for steps, e in ((first, entries), (second, others))]
        torch.testing.assert_close(*moments, rtol=1e-3, atol=1e-5)
    detach(by_tiles)
    detach(masked)
    for (name, tensor), other in zip(by_tiles.state_dict().items(), masked.state_dict().values(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=1e-3, atol=1e-5, msg=name)


def test_training_by_tiles_under_autocast_is_as_near_as_bfloat16_is():
    _, _, found = train("tiles", torch.bfloat16)
    _, _, expected = train("masked", torch.bfloat16)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)


def test_the_dense_weight_is_neither_read_nor_written():
    layer = nn.Linear(24, 16)
    attach(layer, {"weight": tiles.spread(tile_mask(2, 3), 8)}, "zero", 8)
    behind = original(layer, "weight")
    behind.data.fill_(torch.nan)
    with block_sparse.execution("tiles"):
        y = layer(torch.randn(3, 24))
        y.sum().backward()
    entries = next(active_tensors(layer))[1]
    assert y.isfinite().all() and entries.values.grad is not None and entries.values.grad.isfinite().all()
    assert behind.isnan().all() and behind.grad is None


@pytest.mark.parametrize("inactive, block_size, is_watched, expected", [
    ("zero", 8, False, True),
    ("zero", 1, False, False),
    ("frozen", 8, False, False),  # what is inactive is not zero
    ("zero", 8, True, False),  # its dense gradient is wanted
])  # fmt: skip
def test_where_tiles_are_used(inactive: Any, block_size: int, is_watched: bool, expected: bool):
    layer, x = nn.Linear(24, 16), torch.randn(3, 24)
    attach(layer, {"weight": tiles.spread(tile_mask(2, 3), 8)}, inactive, block_size)
    entries = next(active_tensors(layer))[1]
    entries.watch(is_watched)
    with block_sparse.execution("tiles"):
        y = layer(x)
    assert (type(y.grad_fn).__name__ == "_TileLinearBackward") == expected
    y.sum().backward()
    assert (entries.dense_gradient is not None) == is_watched


def test_execution_ends_with_its_block_and_knows_its_ways():
    with pytest.raises(RuntimeError), block_sparse.execution("tiles"):
        raise RuntimeError
    small = (torch.device("cpu"), torch.float32, torch.Size((16, 24)), 8, 0.1, 10)
    assert not block_sparse.runs(*small)
    with pytest.raises(ValueError, match="unknown execution 'sometimes'.*here are auto, tiles, masked"):
        block_sparse.execution("sometimes").__enter__()  # pyright: ignore


def test_tiles_are_chosen_where_they_win():
    cpu, large = torch.device("cpu"), torch.Size((1024, 1024))
    assert block_sparse.wins(cpu, torch.float32, large, 16, 0.1, 4096)
    assert block_sparse.wins(cpu, torch.float32, large, 48, 0.1, 4096)
    assert not block_sparse.wins(cpu, torch.float32, large, 16, 0.9, 4096)
    assert not block_sparse.wins(cpu, torch.float32, large, 2, 0.1, 4096)
    assert not block_sparse.wins(cpu, torch.float32, large, 16, 0.1, 10)
    assert not block_sparse.wins(cpu, torch.float32, torch.Size((64, 64)), 16, 0.1, 4096)
    assert not block_sparse.wins(cpu, torch.float64, large, 16, 0.1, 4096)
    assert not block_sparse.wins(torch.device("cuda"), torch.float32, large, 16, 0.1, 4096)
    layer = nn.Linear(512, 512)
    attach(layer, select({"weight": torch.rand(512, 512)}, 102 * 256, block_size=16), "zero", 16)
    kinds = [type(layer(torch.randn(tokens, 512)).grad_fn).__name__ for tokens in (3, 512)]
    assert kinds == ["AddmmBackward0", "_TileLinearBackward"]


def test_masks_that_are_not_whole_tiles_are_refused():
    layer, half = nn.Linear(8, 8), torch.ones(8, 8).bool()
    half[0, 0] = False
    with pytest.raises(ValueError, match="not made of whole tiles of 4x4"):
        attach(layer, {"weight": half}, "zero", 4)
    with pytest.raises(ValueError, match="tiles of 3x3 do not divide weight, a matrix of 8x8"):
        attach(layer, {"weight": ~half}, "zero", 3)
    attach(layer, {"weight": torch.ones(8, 8).bool()}, "zero", 4)
    entries = next(active_tensors(layer))[1]
    with pytest.raises(ValueError, match="not made of whole tiles"):
        entries.move(entries.indices[1:], entries.values.detach()[1:])
    assert current_masks(layer)["weight"].all() and entries.explored is None


def test_a_base_in_bfloat16_and_copies_compute_by_tiles():
    layer = nn.Linear(48, 32)
    attach(layer.to(torch.bfloat16), {"weight": tiles.spread(tile_mask(2, 3), 16)}, "zero", 16)
    x = torch.randn(4, 48).to(torch.bfloat16)
    expected = layer(x)
    with block_sparse.execution("tiles"):
        found = copy.deepcopy(layer)(x)
        layer(x).sum().backward()
        again = copy.deepcopy(layer)(x)  # after the plan has been made
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    assert torch.equal(found, again)
    entries = next(active_tensors(layer))[1]
    assert isinstance(entries, ActiveEntries) and entries.values.grad is not None
    assert entries.values.grad.dtype == torch.float32
