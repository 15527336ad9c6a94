"""Scaling what is left of a layer: variances against the dense layer, and every entry against explicit loops."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from glue_sparse.core.active import active_tensors, attach, current_masks
from glue_sparse.core.parametrization import detach
from glue_sparse.methods.moving.plain_loop import sparsify_model
from glue_sparse.methods.moving.start import VarianceOf, keep_variance


def wide_linear() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Linear(2000, 2000, bias=False)), torch.randn(64, 2000)


def wide_conv() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Conv2d(64, 256, 3, padding=1, bias=False)), torch.randn(4, 64, 16, 16)


def variances(model: nn.Module, inputs: Tensor) -> tuple[float, float]:
    """Of the outputs, and of the gradient of the inputs for independent gradients of the outputs."""
    inputs = inputs.clone().requires_grad_(True)
    outputs = model(inputs)
    outputs.backward(torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1)))
    assert inputs.grad is not None
    return float(outputs.detach().var()), float(inputs.grad.var())


@pytest.mark.parametrize("build", [wide_linear, wide_conv])
@pytest.mark.parametrize(("of", "index"), [("fan_in", 0), ("fan_out", 1)])
def test_variance_of_a_random_layer_is_kept_at_99_percent_sparsity(build: Any, of: VarianceOf, index: int):
    torch.manual_seed(0)
    model, inputs = build()
    dense = variances(model, inputs)[index]
    plain = copy.deepcopy(model)
    sparsify_model(plain, 0.99, start="random")
    assert variances(plain, inputs)[index] / dense == pytest.approx(0.01, rel=0.1)
    sparsify_model(model, 0.99, start="random", variance=of)
    assert variances(model, inputs)[index] / dense == pytest.approx(1, abs=0.05)


def test_only_the_scale_of_active_entries_changes():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10))
    scaled = copy.deepcopy(plain)
    sparsify_model(plain, 0.8, start="random")
    sparsify_model(scaled, 0.8, start="random", variance="fan_in")
    masks, others = current_masks(plain), current_masks(scaled)
    assert all(torch.equal(masks[name], others[name]) for name in masks)
    detach(plain)
    detach(scaled)
    for layer in (0, 2):
        old, new = plain.get_parameter(f"{layer}.weight"), scaled.get_parameter(f"{layer}.weight")
        ratio = new[old != 0] / old[old != 0]
        assert torch.equal(old != 0, new != 0) and bool((ratio > 1).all())
        assert torch.equal(plain.get_parameter(f"{layer}.bias"), scaled.get_parameter(f"{layer}.bias"))


# layer, its number of inputs and outputs, and how an entry of its weight is read: [output, input, kernel...]
LAYERS = {
    "Linear": (lambda: nn.Linear(5, 4), 5, 4, False),
    "Conv1D": (lambda: Conv1D(4, 5), 5, 4, True),  # of Hugging Face
    "Conv2d": (lambda: nn.Conv2d(5, 4, 3), 5, 4, False),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(5, 4, 3), 5, 4, True),
}


def reference(weight: Tensor, mask: Tensor, of: str, inputs_first: bool) -> Tensor:
    """Each entry times sqrt(entries of its unit / active entries of its unit), unit after unit."""
    by_unit = weight if (of == "fan_in") != inputs_first else weight.transpose(0, 1)
    active = mask if (of == "fan_in") != inputs_first else mask.transpose(0, 1)
    scaled = torch.zeros_like(by_unit)
    for unit in range(len(by_unit)):
        entries, count = by_unit[unit], int(active[unit].sum())
        if count:
            scaled[unit] = entries * active[unit] * (entries.numel() / count) ** 0.5
    return scaled if (of == "fan_in") != inputs_first else scaled.transpose(0, 1)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("of", ["fan_in", "fan_out"])
def test_every_entry_against_a_loop_over_units(kind: str, of: VarianceOf):
    build, num_in, num_out, inputs_first = LAYERS[kind]
    torch.manual_seed(3)
    model = nn.Sequential(build())
    weight = model.get_parameter("0.weight").detach().clone()
    assert weight.shape[:2] == ((num_in, num_out) if inputs_first else (num_out, num_in))
    mask = torch.rand(weight.shape) < 0.4
    mask.view(-1)[0] = True
    mask[2] = False  # one unit of the first axis has no active entry
    mask[:, 1] = False  # and one of the second
    attach(model, {"0.weight": mask}, "zero")
    keep_variance(model, of)
    (entries,) = (entries for _, entries in active_tensors(model))
    assert torch.isfinite(entries.values).all()
    detach(model)
    torch.testing.assert_close(model.get_parameter("0.weight").detach(), reference(weight, mask, of, inputs_first))


def test_scaling_by_hand():
    # outputs with 1, 2 and 0 of 4 inputs: times sqrt(4 / 1), times sqrt(4 / 2)
    model = nn.Sequential(nn.Linear(4, 3, bias=False))
    model.get_parameter("0.weight").data = torch.ones(3, 4)
    mask = torch.tensor([[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]).bool()
    attach(model, {"0.weight": mask}, "zero")
    again = copy.deepcopy(model)
    keep_variance(model, "fan_in")
    assert model(torch.ones(1, 4))[0].tolist() == pytest.approx([2, 2 * 2**0.5, 0])
    # inputs with 2, 0, 1 and 0 of 3 outputs: times sqrt(3 / 2), times sqrt(3 / 1)
    keep_variance(again, "fan_out")
    expected = [1.5**0.5, 1.5**0.5 + 3**0.5, 0]
    assert again(torch.ones(1, 4))[0].tolist() == pytest.approx(expected)


def test_a_tensor_without_active_entries():
    model = nn.Sequential(nn.Linear(4, 3, bias=False))
    attach(model, {"0.weight": torch.zeros(3, 4).bool()}, "zero")
    keep_variance(model, "fan_in")
    assert model(torch.ones(1, 4))[0].tolist() == [0, 0, 0]
