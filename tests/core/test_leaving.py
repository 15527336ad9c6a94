"""Casting, copying and detaching attached models: positions and copies stay, and nothing of others goes."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from glue_sparse import attach, detach
from glue_sparse.core.active import active_tensors
from glue_sparse.methods.gates.gates import attach_gates


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 24), nn.LayerNorm(24), nn.Linear(24, 2))


def masks(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: torch.rand(p.shape) < 0.3 for name, p in model.named_parameters()}


def entries_attached(model: nn.Module) -> None:
    attach(model, masks(model))


def gates_attached(model: nn.Module) -> None:
    attach_gates(model, ("0.weight", "2.weight"))


@pytest.mark.parametrize("cast", [lambda m: m.type(torch.bfloat16), lambda m: m.to(torch.bfloat16), lambda m: m.half()])
def test_a_cast_leaves_positions_and_values(cast: Any):
    model = network()
    entries_attached(model)
    before = {n: (entries.indices.clone(), entries.values.detach().clone()) for n, entries in active_tensors(model)}
    assert max(len(indices) for indices, _ in before.values()) > 256  # more than bfloat16 could count
    cast(model)
    for name, entries in active_tensors(model):
        indices, values = before[name]
        assert torch.equal(entries.indices, indices) and entries.indices.dtype == torch.int64
        assert torch.equal(entries.values, values) and entries.values.dtype == torch.float32


@pytest.mark.parametrize("hold", [entries_attached, gates_attached])
def test_detaching_a_copy_or_the_first_leaves_the_other(hold: Any):
    x = torch.randn(3, 40)
    for first_goes in (True, False):
        model = network()
        hold(model)
        other = copy.deepcopy(model)
        wanted = model.eval()(x), {name for name, _ in model.named_parameters()}
        gone, left = (model, other) if first_goes else (other, model)
        detach(gone)
        assert torch.equal(left.eval()(x), wanted[0]) and torch.equal(gone.eval()(x), wanted[0])
        assert {name for name, _ in left.named_parameters()} == wanted[1]
        detach(left)
        assert type(left[0]) is type(gone[0]) is nn.Linear  # pyright: ignore


@pytest.mark.parametrize("hold", [entries_attached, gates_attached])
def test_a_parametrization_of_somebody_else_is_not_taken_away(hold: Any):
    class Doubled(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    model: Any = network()
    hold(model)
    parametrize.register_parametrization(model[2], "weight", Doubled())
    x = torch.randn(3, 40)
    before = model.eval()(x)
    with pytest.raises(ValueError, match="2.weight was given another parametrization after its active entries"):
        detach(model)
    assert torch.equal(model(x), before)


def test_numbers_that_are_not_real_hold_no_entries():
    model = nn.Module()
    model.phase = nn.Parameter(torch.randn(4, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"phase holds torch.complex64"):
        attach(model, {"phase": torch.ones(4, 4, dtype=torch.bool)})
