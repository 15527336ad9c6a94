"""Kernels of gates run by Triton's interpreter, against float64 and the parts of a CPU; test_kernels.py starts this."""

from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import interpreted
from glue_sparse.kernels import backend
from glue_sparse.kernels import gates as kernels
from glue_sparse.methods.gates.gates import Draw, GatedDiff, attach_gates, collapse, gated_tensors
from glue_sparse.methods.gates.hard_concrete import MARGIN, HardConcrete
from glue_sparse.methods.gates.noise import Noise, keys_of

interpreted.install()
uniform = backend.code("gates").uniform
CPU = torch.device("cpu")
CONCRETES = [
    HardConcrete(), HardConcrete(temperature=0.5), HardConcrete(-0.1, 1.1, 2 / 3), HardConcrete(0.0, 1.0, 3.0)
]  # fmt: skip
ENDS = torch.tensor([0.0, -1e30, 1e30, -200.0, 200.0, -20.0, 20.0, 9.2, -9.2])
"""Logits, among them those at which noise just reaches an end."""


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


launched = pytest.fixture(interpreted.launched)


@triton.jit
def made(out, start, first, second, count, BLOCK: tl.constexpr):
    """out[i] = the number at the position start + i."""
    i = tl.arange(0, BLOCK)
    tl.store(out + i, uniform(start.to(tl.int64) + i, first, second), mask=i < count)


@pytest.mark.parametrize("start", [0, 1 << 16, (1 << 31) - 500, (1 << 32) - 1000])
@pytest.mark.parametrize("seed, name", [(0, "w"), (1, "w"), (2, "bert.encoder.layer.0.output.dense.weight"), (7, "b")])
def test_uniform_numbers_are_the_same_bits(start: int, seed: int, name: str):
    found = torch.empty(1000)
    backend.launch(made, (1,), found, start, *keys_of(seed, "gates", 5, name), 1000, BLOCK=1024)
    expected = Noise(seed, "gates", 5, name, longest=1000, device=CPU)(start, 1000)
    assert torch.equal(found, expected) and found.std() > 0.25


def test_keys_are_of_all_signs():
    keys = torch.tensor([keys_of(seed, "gates", 5, name) for seed in (0, 1, 2, 7) for name in "wb"])
    assert (keys[:, 0] < 0).any() and (keys[:, 0] > 0).any()


def layer(
    shape: tuple[int, ...], concrete: HardConcrete, group: float | None, dtype: torch.dtype = torch.float32
) -> tuple[Any, GatedDiff]:
    """A module with one gated weight, whose group's gate has this logit, and the gates."""
    module: Any = nn.Module()
    module.weight = nn.Parameter(torch.randn(shape).to(dtype))
    groups = None if group is None else {"weight": "all"}
    attach_gates(module, ("weight",), groups=groups, concrete=concrete, draw=Draw(1, 3))
    held = next(gated_tensors(module))[1]
    held.diff.data.normal_()
    held.alpha.data.normal_(0, 2)
    ends = held.alpha.data.view(-1)[::7]
    ends.copy_(ENDS.repeat(len(ends))[: len(ends)])
    if held.group is not None and group is not None:
        held.group.alpha.data.fill_(group)
    return module, held


def gradients_of(module: Any, held: GatedDiff, given: Tensor) -> list[Tensor]:
    """The gated weight, and the gradients of diffs, logits and the group's logit."""
    weight = module.weight
    return [weight.detach(), *torch.autograd.grad(weight, list(held.parameters()), given)]


def in_float64(module: Any, held: GatedDiff, given: Tensor) -> list[Tensor]:
    """The same by torch's own derivatives; noise from the formula of the pages."""
    base = module.parametrizations.weight.original.double()
    leaves = [p.detach().double().requires_grad_() for p in held.parameters()]
    draw, concrete = held.drawn(), held.concrete

    def gate(logit: Tensor, kind: str, name: str) -> Tensor:
        if draw:
            u = Noise(draw[0], kind, draw[1], name, longest=logit.numel(), device=CPU)(0, logit.numel())
            u = u.double().clamp(MARGIN, 1 - MARGIN).view_as(logit)
            logit = (logit + u.log() - (1 - u).log()) / concrete.temperature
        s = torch.sigmoid(logit)
        return F.hardtanh(s * (concrete.upper - concrete.lower) + concrete.lower, 0, 1)  # no slope at the very ends

    z = gate(leaves[1], "gates", "weight")
    if held.group is not None:
        z = z * gate(leaves[2], "group gate", "all")
    theta = base + z * leaves[0]
    return [theta.detach(), *torch.autograd.grad(theta, leaves, given.double())]


@pytest.mark.parametrize("has_noise", [True, False])
@pytest.mark.parametrize("group", [None, 0.4, 3.0])
@pytest.mark.parametrize("concrete", CONCRETES)
@pytest.mark.parametrize("shape", [(1,), (3, 5), (41, 53)])
def test_passes_equal_float64_and_the_parts_of_a_cpu(
    shape: tuple[int, ...], concrete: HardConcrete, group: float | None, has_noise: bool, launched: list[str]
):
    module, held = layer(shape, concrete, group)
    module.train(has_noise)
    given = torch.randn(shape)
    found = gradients_of(module, held, given)
    is_open = not held.is_closed(held.drawn())
    assert launched == ["gated", "gate_gradients"] * is_open
    with interpreted.without_kernels():
        parts = gradients_of(module, held, given)
    assert len(launched) == 2 * is_open
    for one, other, exact in zip(found, parts, in_float64(module, held, given), strict=True):
        assert one.dtype == torch.float32 and one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(one.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype, most", [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
@pytest.mark.parametrize("group", [None, 3.0])
def test_weights_of_other_types_are_rounded_once(
    dtype: torch.dtype, most: float, group: float | None, launched: list[str]
):
    module, held = layer((37, 31), HardConcrete(), group, dtype)
    given = torch.randn(37, 31).to(dtype)
    weight, *found = gradients_of(module, held, given)
    assert weight.dtype == dtype and launched
    exact, *expected = in_float64(module, held, given)
    assert ((weight.double() - exact).abs() <= most * exact.abs() + 1e-5).all()
    torch.testing.assert_close([one.double() for one in found], expected, rtol=1e-4, atol=1e-4)


def test_a_gradient_need_not_be_contiguous_and_stays_as_it_is():
    module, held = layer((33, 47), HardConcrete(), 3.0)
    given = torch.randn(47, 33).t()
    before = given.clone()
    found = gradients_of(module, held, given)
    assert all(map(torch.equal, found, gradients_of(module, held, given.contiguous())))
    assert torch.equal(given, before)


def test_shut_groups_pass_nothing_and_a_wide_open_one_learns_nothing():
    """Asked of the kernels themselves: on a CPU a shut group does not get to them."""
    diff, alpha, weight, grad = (torch.randn(3000) for _ in range(4))
    for keys in (None, (keys_of(0, "a"), keys_of(0, "b"))):
        gates = kernels.Gates(-1.5, 1.5, 1.0, MARGIN, keys)
        shut, wide = torch.tensor([-20.0]), torch.tensor([20.0])
        diff[5] = torch.inf  # not even read
        assert torch.equal(gates.weight(diff, alpha, shut, weight), weight)
        assert not gates.change(diff, alpha, shut).any()
        assert not any(one is None or one.any() for one in gates.gradients(grad, diff, alpha, shut))
        diff[5] = 0.0
        assert torch.equal(gates.weight(diff, alpha, wide, weight), gates.weight(diff, alpha, None, weight))
        *found, to_group = gates.gradients(grad, diff, alpha, wide)
        assert to_group is not None and to_group.tolist() == [0.0]
        assert all(map(torch.equal, found, gates.gradients(grad, diff, alpha, None)[:2]))


def test_what_is_no_number_is_seen():
    gates, one = kernels.Gates(-1.5, 1.5, 1.0, MARGIN, (keys_of(0, "a"), keys_of(0, "b"))), torch.ones(1)
    nothing = torch.tensor([torch.nan])
    for diff, alpha, group in ((nothing, one, one), (one, nothing, one), (one, one, nothing)):
        assert gates.weight(diff, alpha, group, one).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weight_is_the_base_plus_what_passes_to_the_bit(dtype: torch.dtype, launched: list[str]):
    module, held = layer((29, 31), HardConcrete(), 3.0, dtype)
    module.eval()
    weight = module.weight.detach().clone()
    collapse(module)
    assert launched[:2] == ["gated", "gated"]
    assert torch.equal(module.weight.detach(), weight)


class Made(TorchDispatchMode):
    """Sizes of what torch makes."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.sizes += [made.numel()]
        return made


def test_nothing_dense_is_made_beside_what_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backend, "launch", lambda *others, **constants: None)
    diff, alpha, grad, weight = torch.randn(4, 5000).unbind()
    gates, group = kernels.Gates(-1.5, 1.5, 1.0, MARGIN, (keys_of(0, "a"), keys_of(0, "b"))), torch.zeros(1)
    with Made() as made:
        gates.weight(diff, alpha, group, weight)
        gates.gradients(grad, diff, alpha, group)
    assert [size for size in made.sizes if size > 1] == [5000, 5000, 5000, 5]


def test_other_types_and_layouts_are_left_to_the_parts(launched: list[str]):
    module, held = layer((4, 6), HardConcrete(), 3.0)
    module.double()
    gradients_of(module, held, torch.randn(4, 6).double())
    assert launched == []
    one, other = torch.randn(4, 6), torch.randn(6, 4).t()
    assert kernels.takes(one, one, None, one)
    for wrong in ((other, one, None, one), (one, one, other, one), (one, one, None, one.double()),
                  (one, one.bfloat16(), None, one), (one, one, None, one[:1])):  # fmt: skip
        assert not kernels.takes(*wrong)


def test_empty_tensors():
    empty, group = torch.empty(0, 3), torch.zeros(1)
    gates = kernels.Gates(-1.5, 1.5, 1.0, MARGIN, None)
    assert gates.weight(empty, empty, group, empty).shape == (0, 3)
    assert [one is not None and one.tolist() for one in gates.gradients(empty, empty, empty, group)] == [[], [], [0.0]]
