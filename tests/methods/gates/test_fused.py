"""Compiled passes over gates are those over pieces, and are used only where that was decided by size and step."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glue_sparse.methods.gates import fused
from glue_sparse.methods.gates.gate_counts import expected_open
from glue_sparse.methods.gates.gates import Draw, attach_gates
from glue_sparse.methods.gates.hard_concrete import HardConcrete
from glue_sparse.methods.gates.noise import Noise, uniform

LATE = (1, fused.FIRST_STEP)
LARGE = torch.zeros(fused.LEAST_GATES)


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Any:
    fused._compiled.cache_clear()
    yield
    fused._compiled.cache_clear()


def test_the_plain_formula_gives_the_numbers_of_pieces():
    noise = Noise(3, "gates", 5, "weight", longest=1000, device=torch.device("cpu"))
    keys = fused.Keys.of(3, "gates", 5, "weight")
    assert torch.equal(uniform(torch.arange(1000, dtype=torch.int32), *keys), noise(0, 1000))


def test_size_and_step_alone_decide(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fused, "_compiled", lambda concrete: "compiled")
    concrete = HardConcrete()
    assert fused.passes(concrete, LARGE, LATE) == "compiled"
    assert fused.passes(concrete, LARGE, (1, fused.FIRST_STEP - 1)) is None
    assert fused.passes(concrete, LARGE[64:], LATE) is None
    assert fused.passes(concrete, LARGE.new_zeros(fused.LEAST_GATES + 1), LATE) is None
    assert fused.passes(concrete, LARGE, None) is None
    assert fused.passes(concrete, LARGE.to("meta"), LATE) is None


def test_where_nothing_can_be_compiled_pieces_are_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr(torch, "compile", fail)
    assert fused.passes(HardConcrete(), LARGE, LATE) is None and fused.passes(HardConcrete(), LARGE, LATE) is None
    assert caplog.text.count("no working C++ compiler") == 1


def gradients(grouped: bool, step: int) -> list[Tensor]:
    torch.manual_seed(0)
    layer: Any = nn.Linear(250, 320)
    draw = Draw(1, step)
    attach_gates(layer, ("weight",), groups={"weight": "all"} if grouped else None, draw=draw, alpha_init=0.3)
    held = layer.parametrizations.weight[0]
    held.diff.data.normal_()
    if grouped:
        held.group.alpha.data.fill_(-0.5)
    y = layer(torch.randn(4, 250))
    count = expected_open(held)
    (y.square().sum() + (1e-4 * count).square().float()).backward()
    return [y.detach(), count.detach(), held.diff.grad, held.alpha.grad, *([held.group.alpha.grad] if grouped else [])]


@pytest.mark.slow  # compiles C++
@pytest.mark.parametrize("grouped", [False, True])
def test_compiled_passes_are_those_over_pieces(grouped: bool, monkeypatch: pytest.MonkeyPatch):
    found = gradients(grouped, fused.FIRST_STEP)
    assert fused._compiled.cache_info().currsize == 1 and fused._compiled(HardConcrete()) is not None
    monkeypatch.setattr(fused, "FIRST_STEP", 10**9)
    expected = gradients(grouped, 50)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))


@pytest.mark.slow  # compiles C++
def test_sums_do_not_depend_on_the_number_of_threads():
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            torch._dynamo.reset()  # the number is written into the loops
            fused._compiled.cache_clear()
            found.append(gradients(True, fused.FIRST_STEP))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for later in found[1:] for one, other in zip(found[0], later, strict=True))
