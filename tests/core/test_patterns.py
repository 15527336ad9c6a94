"""Gradients formed at patterns equal those of the plain layers, and keep and form no more than they need."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from glue_sparse import attach
from glue_sparse.core import kept_inputs, patterns
from glue_sparse.core.active import ActiveEntries, active_tensors
from glue_sparse.core.parametrization import original

OUT, IN = 48, 64


def linear() -> nn.Module:
    return nn.Linear(IN, OUT)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (linear, (3, 5, IN)),
    "vectors": (linear, (7, IN)),
    "one vector": (linear, (IN,)),
    "no tokens": (linear, (0, IN)),
    "without bias": (lambda: nn.Linear(IN, OUT, bias=False), (2, 3, 4, IN)),
    "inputs first": (lambda: Conv1D(OUT, IN), (3, 5, IN)),
    "patches": (lambda: nn.Conv2d(3, 40, 4, stride=4), (5, 3, 16, 12)),
    "overlapping patches": (lambda: nn.Conv2d(12, 40, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
                            (5, 12, 9, 11)),
    "points": (lambda: nn.Conv2d(30, 40, 1, bias=False), (3, 30, 5, 4)),
    "sequence": (lambda: nn.Conv1d(20, 40, 5, padding=2), (3, 20, 17)),
    "volume": (lambda: nn.Conv3d(4, 40, 2), (2, 4, 5, 4, 3)),
}  # fmt: skip
"""Name -> a layer and the shape of its input."""


def scattered(shape: torch.Size) -> Tensor:
    return torch.rand(shape) < 0.03


def of_few_inputs(shape: torch.Size, axis: int) -> Tensor:
    """Half of the entries of every tenth input."""
    mask = torch.rand(shape) < 0.5
    inputs = torch.arange(shape.numel() // shape[1 - axis] if axis == 0 else shape[1:].numel())
    used = (inputs % 10 == 3).view((-1, 1) if axis == 0 else (1, *shape[1:]))
    return mask & used


def of_few_outputs(shape: torch.Size, axis: int) -> Tensor:
    return of_few_inputs(shape[::-1], 0).t() if len(shape) == 2 and axis else of_few_inputs(shape, 1 - axis)


MASKS: dict[str, Callable[[torch.Size, int], Tensor]] = {
    "scattered": lambda shape, axis: scattered(shape),
    "few inputs": of_few_inputs,
    "one entry": lambda shape, axis: torch.arange(shape.numel()).view(shape) == shape.numel() // 2,
    "one output": lambda shape, axis: (torch.arange(shape[1 - axis]) == 2).view(
        (1, -1) if axis == 0 else (-1, *[1] * (len(shape) - 1))).expand(shape).contiguous(),
}  # fmt: skip
WAYS = ("sampled", "dense")


@contextmanager
def forced(way: str | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the block patterns are made for this way of products, whatever it costs."""
    with monkeypatch.context() as patch:
        if way is not None:
            patch.setattr(patterns, "_CLEARLY", 1e9)
            dear = ("_MAC",) if way == "sampled" else ("_DOT", "_TRANSPOSE")
            for name in dear:
                patch.setattr(patterns, name, 1e6)
        yield


def gradients(layer: nn.Module, weight: Tensor, x: Tensor, y: Tensor) -> list[Tensor | None]:
    output = layer(x)
    output.backward(y.to(output.dtype))
    found = [x.grad, weight.grad, getattr(layer, "bias", None) is not None and layer.bias.grad]
    return [one.clone() if isinstance(one, Tensor) else None for one in found]


def check(
    kind: str, mask_kind: str, dtype: torch.dtype = torch.float32, way: str | None = None,
    monkeypatch: pytest.MonkeyPatch | None = None, context: Any = None, needs_x: bool = True,
) -> str:  # fmt: skip
    """Compare all gradients with those of the plain layer; returns the name of the step that autograd took."""
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    layer = make().to(dtype)
    weight: Any = layer.weight
    mask = MASKS[mask_kind](weight.shape, 0 if kind == "inputs first" else 1)
    x = torch.randn(shape, dtype=dtype, requires_grad=needs_x)
    with context or nullcontext():
        y = torch.randn_like(layer(x))
        expected = gradients(layer, weight, x, y)
        x.grad = None
        layer.zero_grad()
        with forced(way, monkeypatch) if monkeypatch else nullcontext():
            attach(layer, {"weight": mask})
        output = layer(x)
        values = next(active_tensors(layer))[1].values
        found = gradients(layer, values, x, y)
    (x_grad, weight_grad, bias_grad), exact = expected, dtype == torch.float32 and context is None
    assert weight_grad is not None and original(layer, "weight").grad is None
    for one, other in zip(found, (x_grad, weight_grad[mask].float(), bias_grad), strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            largest = float(other.detach().abs().max()) if other.numel() else 0.0
            relative = 1e-5 if exact else 2e-2
            torch.testing.assert_close(one, other, rtol=relative, atol=relative * largest)
    return type(output.grad_fn).__name__


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_equal_those_of_the_plain_layer(kind: str, mask: str, way: str, monkeypatch: pytest.MonkeyPatch):
    taken = check(kind, mask, way=way, monkeypatch=monkeypatch)
    assert taken.startswith("_Sampled")


@pytest.mark.parametrize("has_units", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["linear", "inputs first", "overlapping patches"])
@pytest.mark.parametrize("precision", ["tensors", "autocast"])
def test_half_precision(
    kind: str, way: str, precision: str, has_units: bool, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    monkeypatch.setattr(patterns, "_HAS_UNITS", has_units)
    context = torch.autocast("cpu", torch.bfloat16) if precision == "autocast" else None
    dtype = torch.float32 if precision == "autocast" else torch.bfloat16
    taken = check(kind, "few inputs", dtype, way, monkeypatch, context)
    assert taken.startswith(("_Sampled", "ToCopy"))


def test_an_input_without_gradient_and_a_frozen_bias():
    check("linear", "few inputs", needs_x=False)
    layer = nn.Linear(IN, OUT)
    layer.bias.requires_grad_(False)
    attach(layer, {"weight": scattered(layer.weight.shape)})
    layer(torch.randn(4, IN)).sum().backward()
    assert layer.bias.grad is None and next(active_tensors(layer))[1].values.grad is not None


@pytest.mark.parametrize("kind", ["linear", "inputs first"])
def test_only_the_inputs_in_use_are_kept(kind: str):
    layer = LAYERS[kind][0]()
    weight: Any = layer.weight
    mask = of_few_inputs(weight.shape, 0 if kind == "inputs first" else 1)
    attach(layer, {"weight": mask})
    kept: list[Tensor] = []
    x = torch.randn(16, IN, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    widths = {t.shape[-1] for t in kept if t.dim() == 2 and len(t) == 16}
    assert widths == {len(range(3, IN, 10))}
    assert not any(t.data_ptr() == x.data_ptr() for t in kept)


class Gated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, -1)
        return F.silu(one) * other.sin()


BEFORE: dict[str, tuple[nn.Module, int]] = {
    "GELU": (nn.GELU(), IN), "its approximation": (nn.GELU("tanh"), IN), "SiLU": (nn.SiLU(), IN),
    "ReLU": (nn.ReLU(), IN), "gated": (Gated(), 2 * IN), "norm": (nn.LayerNorm(IN), IN),
    "norm without weights": (nn.LayerNorm(IN, elementwise_affine=False), IN),
}  # fmt: skip


@pytest.mark.parametrize("mask", ["scattered", "few inputs"])
@pytest.mark.parametrize("kind", BEFORE)
def test_inputs_that_can_be_computed_again_are_not_kept(kind: str, mask: str):
    torch.manual_seed(0)
    before, width = BEFORE[kind]
    model: Any = nn.Sequential(before, nn.Linear(IN, OUT))
    x = torch.randn(16, width, requires_grad=True)
    chosen = MASKS[mask](model[1].weight.shape, 1)
    (model(x) * torch.arange(OUT)).sum().backward()
    expected = [model[1].weight.grad[chosen], x.grad]
    x.grad = None
    attach(model, {"1.weight": chosen})
    between = model[0](x)
    y = model[1](between)
    is_kept = "norm" in kind and mask == "scattered"  # as a whole, for all layers that share it
    assert type(y.grad_fn).__name__ == "_SampledLinearBackward" and (y.grad_fn.saved_tensors[0] is not None) == is_kept
    (y * torch.arange(OUT)).sum().backward()
    found = [next(active_tensors(model))[1].values.grad, x.grad]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    inputs = torch.arange(3, IN, 10)
    assert torch.equal(kept_inputs.again(before(x).grad_fn, inputs), before(x)[:, inputs])  # pyright: ignore


def test_within_hooks_for_kept_tensors_inputs_are_kept():
    model: Any = nn.Sequential(nn.GELU(), nn.Linear(IN, OUT))
    mask = scattered(model[1].weight.shape)
    x = torch.randn(16, IN, requires_grad=True)
    model(x).square().sum().backward()
    expected = model[1].weight.grad[mask]
    attach(model, {"1.weight": mask})
    checkpoint(model, x, use_reentrant=False).square().sum().backward()  # pyright: ignore
    torch.testing.assert_close(next(active_tensors(model))[1].values.grad, expected, rtol=1e-4, atol=1e-4)


class Shapes(TorchDispatchMode):
    """Notes the shapes of all results that have memory of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {one.data_ptr() for one in args if isinstance(one, Tensor) and one.layout == torch.strided}
        for one in found if isinstance(found, tuple | list) else (found,):
            if isinstance(one, Tensor) and one.layout == torch.strided and one.data_ptr() not in given:
                self.seen.add(tuple(one.shape))
        return found


@pytest.mark.parametrize("mask", ["scattered", "few inputs"])
def test_no_gradient_of_the_whole_matrix_is_formed(mask: str):
    layer = nn.Linear(IN, OUT)
    attach(layer, {"weight": MASKS[mask](layer.weight.shape, 1)})
    y = layer(torch.randn(9, IN))  # whose gradient is not wanted, since it needs the weight
    with Shapes() as shapes:
        y.sum().backward()
    assert shapes.seen and (OUT, IN) not in shapes.seen
    plain = nn.Linear(IN, OUT)
    y = plain(torch.randn(9, IN))
    with Shapes() as shapes:
        y.sum().backward()
    assert {(OUT, IN), (IN, OUT)} & shapes.seen  # so that it would have been seen


def test_layers_below_the_lowest_active_entry_take_no_part_in_the_backward_pass():
    body = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16), nn.Linear(16, 2))
    masks = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in body.named_parameters()}
    masks["3.weight"][2, 5] = True
    attach(body, masks)
    states: list[Any] = []
    for layer in body:
        layer.register_forward_hook(lambda module, given, output: states.append(output))
    body(torch.arange(8)).sum().backward()
    assert [state.requires_grad for state in states] == [False, False, False, True, True]
    grads = {name: entries.values.grad for name, entries in active_tensors(body)}
    assert [name for name, grad in grads.items() if grad is not None] == ["3.weight"]


def test_the_kinds_of_patterns():
    def made(mask: Tensor, make: Any = patterns.pattern) -> Any:
        entries = ActiveEntries(torch.randn(mask.shape), mask.flatten().nonzero().squeeze(1), "frozen")
        return make(entries)

    shape = torch.Size((1536, 384))
    few = made(of_few_inputs(shape, 1))
    assert few.starts is None and few.columns.tolist() == list(range(3, 384, 10))
    random = made(torch.rand(shape) < 0.005)
    assert random.columns is None and random.starts is not None
    assert made(torch.rand(shape) < 0.5) is None and made(torch.zeros(shape, dtype=torch.bool)) is None
    first = made(of_few_inputs(shape[::-1], 0), patterns.pattern_inputs_first)
    assert first.rows.tolist() == list(range(3, 384, 10))
    assert made((torch.rand(shape) < 0.005), lambda e: patterns.pattern(_in_double(e))) is None


def _in_double(entries: ActiveEntries) -> ActiveEntries:
    return entries.double()


def test_a_tied_table_and_output_layer_share_their_values():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.output = nn.Embedding(30, 12), nn.Linear(12, 30, bias=False)
            self.output.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.output(self.table(ids)).logsumexp(-1).sum()

    torch.manual_seed(0)
    model, ids = Tied(), torch.randint(0, 30, (4, 6))
    mask = scattered(model.table.weight.shape)
    model(ids).backward()
    expected = model.table.weight.grad[mask]  # pyright: ignore[reportOptionalSubscript]
    attach(model, {"table.weight": mask})
    with Shapes() as shapes:
        model(ids).backward()
    torch.testing.assert_close(next(active_tensors(model))[1].values.grad, expected, rtol=1e-4, atol=1e-6)
    assert (12, 30) not in shapes.seen  # what a dense gradient of the output layer is before it is turned round


@pytest.mark.parametrize("tokens", [0, 1, 255, 256, 257, 600])
def test_transposing_by_blocks_moves_every_number_to_its_place(tokens: int):
    x = torch.randn(tokens, 7)
    turned = patterns._turned(x)
    assert torch.equal(turned, x.t()) and turned.is_contiguous()
