"""New random values for sparse tensors: moments, determinism, and which entries get one."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from glue_sparse import SparseDiff, check_folded
from glue_sparse.core.active import active_tensors, attach
from glue_sparse.core.options import Initial
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.methods.moving.initial import redraw
from glue_sparse.methods.moving.start import keep_variance
from networks import bert

SMALL = "layer.weight"


def wide(inactive: Any, density: float = 0.5) -> tuple[nn.Module, Tensor]:
    """A layer of 300 inputs and 900 outputs, half of it active."""
    model = nn.ModuleDict({"layer": nn.Linear(300, 900), "other": nn.Linear(3, 3)})
    mask = torch.rand(900, 300, generator=torch.Generator().manual_seed(0)) < density
    attach(model, {SMALL: mask}, inactive)
    return model, mask


@pytest.mark.parametrize("inactive", ["zero", "frozen"])
def test_moments_of_a_truncated_normal(inactive: Any):
    """Cut at two standard deviations its own is 0.8796 of 0.02, and 0.3829 / 0.9545 lies within half of one."""
    model, mask = wide(inactive)
    redraw(model, "truncated_normal", 0)
    values = current_tensors(model)[SMALL][mask]
    assert float(values.std()) == pytest.approx(0.01759, rel=0.01)
    assert float(values.mean()) == pytest.approx(0, abs=2e-4)
    assert 0.039 < float(values.abs().max()) <= 0.04
    assert float((values.abs() < 0.01).float().mean()) == pytest.approx(0.3829 / 0.9545, abs=0.005)


def test_moments_of_glorot_are_those_of_the_dense_layer():
    model, mask = wide("zero", density=0.1)
    redraw(model, "glorot", 0)
    values, bound = current_tensors(model)[SMALL][mask], (6 / 1200) ** 0.5
    assert 0.999 * bound < float(values.abs().max()) <= bound
    assert float(values.std()) == pytest.approx(bound / 3**0.5, rel=0.01)
    assert float((values > bound / 2).float().mean()) == pytest.approx(0.25, abs=0.01)
    keep_variance(model, "fan_in")  # sqrt(1 / 0.1), output by output
    check_folded(model)
    assert float(current_tensors(model)[SMALL][mask].std()) == pytest.approx(bound / 3**0.5 * 10**0.5, rel=0.03)


@pytest.mark.parametrize("initial", ["truncated_normal", "glorot"])
def test_which_entries_get_a_value(initial: Initial):
    drawn = {}
    for inactive in ("zero", "frozen"):
        model, mask = wide(inactive)
        before = {name: tensor.clone() for name, tensor in current_tensors(model).items()}
        redraw(model, initial, 3)
        check_folded(model)
        after = current_tensors(model)
        drawn[inactive] = after[SMALL].clone()
        assert all(torch.equal(after[n], before[n]) for n in before if n != SMALL)
        assert (after[SMALL][mask] != before[SMALL][mask]).float().mean() > 0.99
        (entries,) = (entries for _, entries in active_tensors(model))
        assert torch.equal(entries.values.detach(), after[SMALL][mask])
        assert entries.base_values is not None
        if inactive == "zero":
            assert not after[SMALL][~mask].any()
        else:
            assert torch.equal(entries.base_values, after[SMALL][mask])
            assert (after[SMALL][~mask] != before[SMALL][~mask]).float().mean() > 0.99
            assert float(after[SMALL][~mask].std()) == pytest.approx(float(after[SMALL][mask].std()), rel=0.02)
    mask = wide("zero")[1]
    assert torch.equal(drawn["zero"][mask], drawn["frozen"][mask])  # whatever is active
    plain = nn.ModuleDict({"layer": nn.Linear(300, 900)})
    redraw(plain, initial, 3, [SMALL])
    assert torch.equal(plain.get_parameter(SMALL).detach(), drawn["frozen"])


def test_values_depend_on_seed_and_name_alone():
    def values(seed: int) -> dict[str, Tensor]:
        model = bert()
        names = [f"bert.encoder.layer.{i}.intermediate.dense.weight" for i in range(2)]
        attach(model, {n: torch.ones(32, 16).bool() for n in names}, "zero")
        torch.manual_seed(torch.seed())
        state = torch.get_rng_state()
        redraw(model, "truncated_normal", seed)
        assert torch.equal(state, torch.get_rng_state())
        return {n: entries.values.detach() for n, entries in active_tensors(model)}

    (one, other), again, second = (values(seed).values() for seed in (0, 0, 1))
    assert torch.equal(one, next(iter(again))) and not torch.equal(one, next(iter(second)))
    assert not torch.equal(one, other)


def test_a_frozen_network_has_another_base_and_says_so():
    base, model = bert(), bert()
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    attach(model, {name: torch.rand(32, 16) < 0.5}, "frozen")
    redraw(model, "truncated_normal", 0)
    diff = SparseDiff.from_model(model)
    with pytest.raises(ValueError, match="differs from the base of this diff"):
        diff.check(base)
    redraw(base, "truncated_normal", 0, [name])
    diff.merge_into(base)
    found = current_tensors(model)
    assert all(torch.equal(tensor, found[n]) for n, tensor in current_tensors(base).items())


def test_a_diff_of_a_network_with_zeros_still_fits_its_base():
    base, model = bert(), bert()
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    attach(model, {name: torch.rand(32, 16) < 0.5}, "zero")
    redraw(model, "glorot", 0)
    SparseDiff.from_model(model).merge_into(base)
    assert torch.equal(base.get_parameter(name).detach(), current_tensors(model)[name])


def test_fans_of_transposed_layers_and_of_experts():
    class Experts(nn.Module):
        is_transposed = False

        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.zeros(5, 30, 20))

    model = nn.ModuleDict({"layer": Conv1D(30, 20), "experts": Experts()})
    attach(model, {"layer.weight": torch.ones(20, 30).bool(), "experts.up": torch.ones(5, 30, 20).bool()}, "zero")
    redraw(model, "glorot", 0)
    for entries in dict(active_tensors(model)).values():
        bound = (6 / 50) ** 0.5
        assert 0.97 * bound < float(entries.values.detach().abs().max()) <= bound
    experts = current_tensors(model)["experts.up"]
    assert not torch.equal(experts[0], experts[1])


def test_half_precision_keeps_float32_values():
    model = nn.ModuleDict({"layer": nn.Linear(8, 8)}).bfloat16()
    whole = copy.deepcopy(model).float()
    for network in (model, whole):
        attach(network, {SMALL: torch.eye(8).bool()}, "zero")
        redraw(network, "truncated_normal", 0)
    found, expected = (next(iter(dict(active_tensors(network)).values())).values for network in (model, whole))
    assert torch.equal(found, expected) and found.dtype == torch.float32


def test_what_cannot_be_drawn():
    model = nn.Sequential(nn.Linear(3, 3))
    attach(model, {"0.bias": torch.ones(3).bool()}, "zero")
    redraw(model, "truncated_normal", 0)
    with pytest.raises(ValueError, match="glorot needs matrices"):
        redraw(model, "glorot", 0)
    with pytest.raises(ValueError, match="unknown initial distribution 'normal'"):
        redraw(model, "normal", 0)  # type: ignore[arg-type]
