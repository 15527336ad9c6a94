"""torch.compile of attached models: one graph, the losses of the uncompiled model, and operators that are sound."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from glue_sparse import noise, select
from glue_sparse.core import block_sparse, operators, tiles
from glue_sparse.core.active import active_tensors, attach
from glue_sparse.core.block_layer import BlockSparseLinear
from glue_sparse.core.params import body_names
from glue_sparse.core.randomness import seeded
from glue_sparse.core.reindexing import reindex
from networks import bert, cast, gpt2
from tile_masks import tile_mask

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_hidden_layers": 1}
IDS = torch.randint(1, 50, (4, 6), generator=seeded(0, "ids"))
BATCH = {"input_ids": IDS, "labels": torch.tensor([0, 1, 1, 0])}
Between = Callable[[nn.Module, torch.optim.Optimizer, int], None]


class Net(nn.Module):
    """An embedding and linear layers, one of which is used twice, with changes in place behind them."""

    def __init__(self, linear: Callable[[int, int], nn.Module] = nn.Linear):
        super().__init__()
        self.table = nn.Embedding(50, 32, padding_idx=0)
        self.layer, self.twice, self.head = linear(32, 64), linear(64, 64), nn.Linear(64, 2)

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        x = self.layer(self.table(input_ids).mul_(2)).relu_()
        x = self.twice(self.twice(x).relu_())
        return {"loss": F.cross_entropy(self.head(x.mean(1)), labels)}


def half_tiled(inputs: int, outputs: int) -> BlockSparseLinear:
    return BlockSparseLinear(tiles.spread(tile_mask(outputs // 16, inputs // 16), 16), 16)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def attached(model: nn.Module, density: float = 0.02) -> nn.Module:
    names = body_names(model, ())
    size = sum(model.get_parameter(name).numel() for name in names)
    attach(model, select(noise(model, names), int(size * density)))
    return model


def attached_tiles() -> nn.Module:
    model = Net()
    columns = {"layer.weight": 2, "twice.weight": 4}
    masks = {name: tiles.spread(tile_mask(4, count), 16) for name, count in columns.items()}
    attach(model, masks, "zero", 16)
    return model


def losses(
    model: nn.Module, backend: str | None, between: Between | None = None, forwards: int = 1, steps: int = 3
) -> list[float]:
    """Of a few steps of fused AdamW, which changes values without saying so, and of the model that it leaves."""
    run: Any = model if backend is None else torch.compile(model, fullgraph=True, backend=backend)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, found = torch.optim.AdamW(trained, lr=0.02, fused=True), []
    for step in range(steps):
        batches = [{**BATCH, "input_ids": BATCH["input_ids"].roll(i, 0)} for i in range(forwards)]
        loss = torch.stack([run(**batch)["loss"] for batch in batches]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
        if between is not None:
            between(model, optimizer, step)
    with torch.no_grad():
        return [*found, float(run(**BATCH)["loss"])]


def check(model: nn.Module, **how: Any) -> None:
    other = copy.deepcopy(model)
    expected = losses(model, None, **how)
    assert len(set(expected)) > 1  # it learns
    assert losses(other, "aot_eager", **how) == expected


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiled_bert_is_one_graph_with_the_same_losses(dtype: torch.dtype):
    check(attached(cast(bert(**NO_DROPOUT), dtype), 0.005 if dtype == torch.float32 else 0.05))


@pytest.mark.slow
def test_a_compiled_gpt2_whose_weights_are_transposed():
    model = gpt2().eval()
    del model.transformer.h[1]
    check(attached(model))


@pytest.mark.slow
def test_two_forward_passes_before_a_backward_pass():
    check(attached(Net()), forwards=2)


@pytest.mark.slow
def test_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        check(attached(Net()))


@pytest.mark.parametrize("way", [pytest.param(nullcontext(), marks=pytest.mark.slow), block_sparse.execution("tiles")])
def test_tiles(way: AbstractContextManager[None]):
    with way:
        check(attached_tiles())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_that_hold_tiles_alone(dtype: torch.dtype):
    check(Net(half_tiled).to(dtype))


def moved(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Other entries, as many in each tensor, or tiles."""
    masks = {}
    for name, entries in active_tensors(model):
        pooled = tiles.gathered(entries.mask(), entries.block_size)
        order = torch.randperm(pooled.numel(), generator=seeded(step, name))
        masks[name] = tiles.spread(pooled.flatten()[order].view(pooled.shape), entries.block_size)
    reindex(model, masks, optimizer)


@pytest.mark.slow
def test_entries_that_move_after_the_model_was_compiled():
    check(attached(Net()), between=moved)


def test_tiles_that_move_after_the_model_was_compiled():
    with block_sparse.execution("tiles"):
        check(attached_tiles(), between=moved)


@pytest.mark.slow
def test_a_dense_gradient_that_is_watched_from_the_second_step_on():
    seen: list[dict[str, Tensor]] = []

    def watch(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        if step > 0:
            seen.append({name: e.dense_gradient for name, e in active_tensors(model) if e.dense_gradient is not None})
        for _, entries in active_tensors(model):
            entries.watch(True)

    check(attached(Net()), between=watch)
    eager, compiled = seen[:2], seen[2:]
    assert len(eager) == len(compiled) == 2 and "twice.weight" in eager[0]
    for one, other in zip(eager, compiled, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow  # inductor writes and compiles C++
@pytest.mark.parametrize("forwards", [1, 2])
def test_inductor(forwards: int):
    model = attached(Net())
    expected = losses(copy.deepcopy(model), None, forwards=forwards)
    assert losses(model, "inductor", forwards=forwards) == pytest.approx(expected, rel=1e-5)


X, GRAD = torch.randn(2, 3, 32), torch.randn(2, 3, 16)
PLACES = block_sparse.plan_of(tile_mask(2, 4), 8).places[:7]
TILES = torch.randn(len(PLACES[0]), 8, 8)
CALLS: dict[str, list[tuple[Any, ...]]] = {
    "write": [(torch.zeros(3, 4), torch.tensor([1, 7]), torch.ones(2))],
    "read": [(torch.randn(3, 4), torch.tensor([1, 7]).int(), torch.float64)],
    "note": [(torch.tensor(-1), X)],
    "linear": [(X, torch.randn(16, 32), bias) for bias in (None, torch.randn(16))],
    "linear_inputs_first": [(X, torch.randn(32, 16), bias) for bias in (None, torch.randn(16))],
    "sampled_product": [(GRAD, X, torch.tensor([0, 1, *[2] * 15]).int(), torch.tensor([5, 3]).int())],
    "convolution_gradient": [
        (torch.randn(2, 4, 5), torch.randn(2, 3, 5), rows, torch.tensor([1, 8]).int(), starts,
         torch.tensor([1, 0]).int(), [3], [1], [1], [1])
        for rows, starts in ((None, None), (torch.tensor([1, 2]).int(), torch.tensor([0, 1, 2]).int()))
    ],
    "embedding": [(IDS, torch.randn(50, 8), padding) for padding in (None, 0)],
    "embedding_gradient": [
        (torch.randn(*IDS.shape, 8), IDS, torch.tensor([8, 9, 90]), 50, padding, torch.float32) for padding in (None, 1)
    ],
    "tile_product": [(X, TILES, bias, *PLACES) for bias in (None, torch.randn(16))],
    "tile_gradients": [(GRAD, x, TILES, needs, *PLACES) for x, needs in ((X, True), (None, True), (X, False))],
}


def test_all_operators_are_checked_below():
    assert {name for name in dir(torch.ops.glue_sparse) if name.islower() and name[0] != "_"} - {"name"} == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_operators_are_what_they_say(name: str):
    for call in CALLS[name]:
        torch.library.opcheck(getattr(torch.ops.glue_sparse, name).default, call)


def test_the_gradient_of_a_table_equals_the_dense_one_whatever_the_ids():
    table = torch.randn(7, 3, requires_grad=True)
    indices = torch.tensor([0, 2, 4, 5, 9, 20])
    for ids in (torch.tensor([[6, 0, 6], [1, 1, 1]]), torch.arange(7), torch.tensor([3], dtype=torch.int32), IDS[:0]):
        for padding in (None, 1):
            out = F.embedding(ids, table, padding)
            grad = torch.randn_like(out)
            expected = torch.autograd.grad(out, table, grad)[0].flatten()[indices]
            found = torch.ops.glue_sparse.embedding_gradient(grad, ids, indices, 7, padding, torch.float32)
            torch.testing.assert_close(found, expected)


def sampled_linear(bias: bool = True) -> nn.Module:
    return attached(nn.Linear(32, 64, bias=bias))


FAST: dict[str, Callable[[], nn.Module]] = {
    "sampled": sampled_linear,
    "sampled_without_bias": lambda: sampled_linear(False),
    "plain": lambda: attached(nn.Linear(32, 64), 0.5),
    "tiles_of_entries": lambda: attached_tiles().get_submodule("layer"),
    "tiles": lambda: half_tiled(32, 64),
    "table": lambda: attached(nn.Embedding(50, 64)),
    "inputs_first": lambda: attached(Conv1D(64, 32)),
}


@pytest.mark.parametrize("kind", FAST)
@pytest.mark.parametrize("lead", [(4,), (4, 6), (2, 2, 6)])
def test_what_follows_a_layer_may_change_its_result_in_place(kind: str, lead: tuple[int, ...]):
    layer = FAST[kind]()
    x = IDS.flatten()[: torch.Size(lead).numel()].view(lead) if kind == "table" else torch.randn(*lead, 32)
    trained = [p for p in layer.parameters() if p.requires_grad]
    with block_sparse.execution("tiles"):
        apart, inside = layer(x).mul(3).relu(), layer(x).mul_(3).relu_()
        assert torch.equal(apart, inside)
        grad = torch.randn_like(apart)
        expected, found = (torch.autograd.grad(y, trained, grad, allow_unused=True) for y in (apart, inside))
    for one, other in zip(expected, found, strict=True):
        assert one is None and other is None or torch.equal(one, other)


def test_a_gradient_of_a_sampled_gradient_is_refused():
    layer = sampled_linear()
    values = next(active_tensors(layer))[1].values
    grad = torch.autograd.grad(layer(torch.randn(4, 32)).square().sum(), values, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_a_token_of_one_that_is_gone_tells_nobody():
    layer = nn.Linear(4, 4)
    attach(layer, {"weight": torch.eye(4).bool()})
    entries = next(active_tensors(layer))[1]
    entries.watch(True)
    token = entries._token
    assert token is not None
    del layer, entries
    operators.note(token, torch.ones(4, 4))
