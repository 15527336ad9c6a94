"""Frozen tensors and attached models: flags, casts, parametrizations of others; the methods are tested in training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from glue_sparse import RIGL, SparseOptimizer, attach, detach, noise, select, sparsify_model
from glue_sparse.core.active import active_tensors
from glue_sparse.core.parametrization import current_tensors, frozen_tensors, held_tensors
from glue_sparse.core.reindexing import take_over
from glue_sparse.methods.gates.gates import attach_gates
from glue_sparse.methods.moving.drop_grow import with_changes
from networks import bert


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


def some(model: nn.Module, *names: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(model.get_parameter(name).shape, generator=generator) < 0.3 for name in names}


def test_masks_that_ask_nothing_of_a_frozen_tensor_go_and_others_are_refused():
    model = network()
    model[0].requires_grad_(False)
    nothing = torch.zeros(12, 8, dtype=torch.bool)
    for masks, inactive, what in (
        (some(model, "0.weight", "2.weight"), "frozen", "active entries"),
        ({"0.weight": nothing}, "zero", "zeros"),
    ):
        before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
        with pytest.raises(ValueError, match=f"the mask of 0.weight asks for {what}"):
            attach(model, masks, inactive)  # pyright: ignore
        with pytest.raises(ValueError, match="0.weight is frozen"):
            attach_gates(model, ("2.weight", "0.weight"))
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name][0])
            assert parameter.requires_grad == before[name][1]
    attach(model, {"0.weight": nothing, **some(model, "2.weight")})
    assert [name for name, _ in active_tensors(model)] == ["2.weight"]
    assert frozen_tensors(model).keys() == {"0.weight", "0.bias"}
    detach(model)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {"0.weight", "0.bias"}


def train(model: nn.Module, num_steps: int = 6) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    optimizer = SparseOptimizer(optimizer, model, with_changes(RIGL, every=2), num_steps=num_steps)
    generator = torch.Generator().manual_seed(2)
    for _ in range(num_steps):
        x = torch.randn(16, 8, generator=generator)
        nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_plain_loop_leaves_frozen_tensors_alone(when: str):
    """Frozen before a network becomes sparse a tensor stays dense; afterwards, it stays as sparse as it is."""
    model = network()
    if when == "before":
        model[2].requires_grad_(False)
    sparsify_model(model, 0.5)
    if when == "after":
        model[2].requires_grad_(False)
    old = {name: tensor.clone() for name, tensor in current_tensors(model).items()}
    train(model)
    detach(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, old[name]) == name.startswith("2."), name
        assert parameter.requires_grad != name.startswith("2."), name
    assert (old["2.weight"] == 0).any() == (when == "after")


def test_a_network_that_is_frozen_whole_cannot_become_sparse():
    with pytest.raises(ValueError, match="layers that train"):
        sparsify_model(network().requires_grad_(False), 0.5)
    with pytest.raises(ValueError, match="frozen: call requires_grad_"):
        sparsify_model(bert().requires_grad_(False), 0.5)


@pytest.mark.parametrize("cast", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16().cpu()])
def test_casting_an_attached_model_casts_its_base_alone(cast: Callable[[nn.Module], nn.Module]):
    model, gated = network(), network()
    attach(model, some(model, "0.weight", "4.weight"))
    attach_gates(gated, ("0.weight", "4.weight"), groups={"0.weight": "one", "4.weight": "one"})
    for one in (model, gated):
        held = {f"{name} {part}": p for name, h in held_tensors(one) for part, p in h.named_parameters()}
        for parameter in held.values():
            parameter.data += 1e-5 * torch.randn(parameter.shape)  # of bits that bfloat16 does not have
        before = {name: p.detach().clone() for name, p in held.items()}
        cast(one)
        after = {f"{name} {part}": p for name, h in held_tensors(one) for part, p in h.named_parameters()}
        assert after.keys() == before.keys()
        assert all(p.dtype == torch.float32 and torch.equal(p, before[name]) for name, p in after.items())
        half: Any = one[1:](one[0](torch.randn(2, 8, dtype=one[0].bias.dtype)))  # pyright: ignore
        half.float().sum().backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in after.values() if p.requires_grad)
        detach(one)
        assert len({p.dtype for p in one.parameters()}) == 1
        assert one[0].weight.dtype.itemsize == 2  # pyright: ignore


def test_a_cast_to_float64_and_back_goes_through():
    model = network()
    attach(model, some(model, "0.weight"))
    ((_, entries),) = active_tensors(model)
    before = entries.values.detach().clone()
    model.double()
    assert entries.values.dtype == torch.float64
    model.float()
    assert torch.equal(entries.values, before)


KINDS: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "weight norm by hooks": weight_norm,
    "spectral norm by hooks": nn.utils.spectral_norm,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_behind_the_parametrizations_of_others_can_have_active_entries(kind: str):
    model, dense = network(), network()
    for one in (model, dense):
        torch.manual_seed(3)
        KINDS[kind](one[2])  # pyright: ignore
    name = next(name for name, p in model.named_parameters() if name.startswith("2.") and p.shape == (8, 12))
    masks = some(model, name)
    attach(model, masks)
    x = torch.randn(5, 8)
    for one in (model.eval(), dense.eval()):
        one(x).square().sum().backward()
    ((_, entries),) = active_tensors(model)
    assert torch.allclose(entries.values.grad, dense.get_parameter(name).grad[masks[name]], atol=1e-6)  # pyright: ignore
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    detach(model)
    new, old = model.get_parameter(name), dense.get_parameter(name)
    assert torch.equal(new[~masks[name]], old[~masks[name]])
    assert not torch.equal(new[masks[name]], old[masks[name]])
    assert {n for n, _ in model.named_parameters()} == {n for n, _ in dense.named_parameters()}


def test_an_optimizer_of_what_trains_need_not_hold_tensors_without_an_active_entry():
    model = network()
    attach(model, {**some(model, "0.weight"), "2.weight": torch.zeros(8, 12, dtype=torch.bool)})
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    take_over(optimizer, model)
    with pytest.raises(ValueError, match="does not train the active entries"):
        take_over(torch.optim.SGD([model[4].weight], lr=0.1), model)  # pyright: ignore


def test_masks_of_an_unfrozen_model_are_as_ever():
    model = bert()
    names = tuple(name for name, _ in model.named_parameters())
    masks = select(noise(model, names), 100)
    attach(model, masks)
    assert [name for name, _ in active_tensors(model)] == list(names)
    detach(model)
    assert all(p.requires_grad for p in model.parameters())
