"""Active entries: gradients against the dense ones, tied tensors, other types, and changing the set."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from glue_sparse import noise, select
from glue_sparse.core.active import active_tensors, attach, current_masks
from glue_sparse.core.masks import Masks
from glue_sparse.core.parametrization import detach, original, wholly_active
from glue_sparse.core.params import body_names
from glue_sparse.core.reindexing import reindex
from networks import ImageNet, bert, collate, examples


def random_masks(model: nn.Module, budget: int = 200, head: tuple[str, ...] = ()) -> Masks:
    return select(noise(model, body_names(model, head)), budget)


def gradients(model: nn.Module, batch: dict[str, Any], masks: Masks) -> dict[str, torch.Tensor]:
    """Gradients of the active entries, from the plain model."""
    model.zero_grad()
    model(**batch)["loss"].backward()
    return {n: model.get_parameter(n).grad[mask] for n, mask in masks.items()}  # pyright: ignore


@pytest.mark.parametrize("budget", [200, 4000])  # below and above the density at which products are sampled
def test_gradients_equal_those_of_the_dense_model(budget: int):
    model, batch = bert().eval(), collate(examples(6))
    masks = random_masks(model, budget)
    expected = gradients(model, batch, masks)
    logits = model(**batch).logits
    attach(model, masks)
    output = model(**batch)
    output.loss.backward()
    assert torch.equal(output.logits, logits)
    for name, entries in active_tensors(model):
        found = entries.values.grad if len(entries.indices) else torch.zeros(0)
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-7, msg=name)
        assert original(model, name).grad is None


def test_gradients_of_convolutions_norms_and_bare_parameters():
    torch.manual_seed(0)
    model = ImageNet().eval()
    batch = {"images": torch.randn(5, 3, 8, 8), "labels": torch.randint(0, 3, (5,))}
    masks = random_masks(model, 60)
    expected = gradients(model, batch, masks)
    attach(model, masks)
    model(**batch)["loss"].backward()
    for name, entries in active_tensors(model):
        found = entries.values.grad if len(entries.indices) else torch.zeros(0)
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-7)


def test_embedding_gradient_skips_padding_and_sums_repeated_tokens():
    table = nn.Embedding(6, 2, padding_idx=0)
    attach(table, {"weight": torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0], [1, 1], [0, 0]]).bool()})
    output = table(torch.tensor([[1, 1, 0], [4, 5, 2]]))
    (output * torch.tensor([10.0, 1.0])).sum().backward()
    # active: (0,0) (0,1) padding; (1,0) seen twice; (2,1) once; (4,0) (4,1) once
    assert next(active_tensors(table))[1].values.grad.tolist() == [0, 0, 20, 1, 10, 1]  # pyright: ignore


def test_sampled_linear_passes_gradcheck():
    torch.manual_seed(0)
    layer = nn.Linear(30, 20)
    mask = torch.rand(20, 30) < 0.03
    x = torch.randn(7, 30, requires_grad=True)
    y = torch.randn(7, 20)
    (layer(x) * y).sum().backward()
    expected = (x.grad.clone(), layer.weight.grad[mask], layer.bias.grad.clone())  # pyright: ignore
    x.grad = layer.bias.grad = None
    attach(layer, {"weight": mask})
    output = layer(x)
    assert type(output.grad_fn).__name__ == "_SampledLinearBackward"
    (output * y).sum().backward()
    found = (x.grad, next(active_tensors(layer))[1].values.grad, layer.bias.grad)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_only_active_entries_and_whole_tensors_require_a_gradient():
    model = bert()
    head = ("classifier.weight", "classifier.bias")
    attach(model, random_masks(model, 200, head))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 200 + 2 * 16 + 2
    assert tuple(wholly_active(model)) == head


def test_tied_tensors_share_one_set_of_values():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
    model[1].weight = model[0].weight
    mask = torch.rand(7, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    ids = torch.tensor([1, 2, 2])
    model(ids).square().sum().backward()
    expected = model[0].weight.grad[mask]  # pyright: ignore
    attach(model, {"0.weight": mask})
    names = [name for name, _ in active_tensors(model)]
    assert names == ["0.weight"] and len([p for p in model.parameters() if p.requires_grad]) == 1
    model(ids).square().sum().backward()
    torch.testing.assert_close(next(active_tensors(model))[1].values.grad, expected)
    detach(model)
    assert model[0].weight is model[1].weight


def test_detach_restores_names_classes_and_flags():
    model = bert()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    classes = [type(m) for m in model.modules()]
    attach(model, random_masks(model))
    detach(model)
    assert [type(m) for m in model.modules()] == classes
    assert dict(model.named_parameters()).keys() == before.keys()
    assert all(p.requires_grad and torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_a_copy_of_an_attached_model_is_independent():
    model, batch = bert().eval(), collate(examples(2))
    attach(model, random_masks(model, 2000))
    twin = copy.deepcopy(model)
    for _, entries in active_tensors(twin):
        entries.values.data.add_(1.0)
    assert not torch.equal(twin(**batch).logits, model(**batch).logits)
    assert torch.equal(model(**batch).logits, bert().eval()(**batch).logits)


def test_zero_inactive_entries_are_zero_and_bfloat16_keeps_float32_values():
    layer = nn.Linear(8, 8).bfloat16()
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    attach(layer, {"weight": mask}, inactive="zero")
    entries = next(active_tensors(layer))[1]
    assert entries.values.dtype == torch.float32
    small = 2.0**-12  # bfloat16 alone would swallow this update of values around 0.3
    entries.values.data.fill_(0.25 + small)
    weight = layer.weight.detach()
    assert weight.dtype == torch.bfloat16 and not weight[~mask].any()
    entries.values.data.add_(small * 63)  # together they show
    assert torch.equal(layer.weight[mask], torch.full((int(mask.sum()),), 0.25 + small * 64).bfloat16())


@pytest.mark.parametrize("inactive", ["frozen", "zero"])
def test_reindex_keeps_survivors_zeroes_entrants_and_drops_leavers(inactive: Any):
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    attach(layer, {"weight": torch.tensor([[True, True, False, False]])}, inactive)
    entries = next(active_tensors(layer))[1]
    optimizer = torch.optim.Adam([entries.values], lr=0.1)
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    state = optimizer.state[entries.values]
    survivor = (entries.values[1].item(), state["exp_avg"][1].item(), state["exp_avg_sq"][1].item())
    leaver = entries.values[0].item()
    reindex(layer, {"weight": torch.tensor([[False, True, True, False]])}, optimizer)
    assert entries.indices.tolist() == [1, 2]
    zero = inactive == "zero"
    torch.testing.assert_close(entries.values.data, torch.tensor([survivor[0], 0.0 if zero else 3.0]))
    torch.testing.assert_close(state["exp_avg"], torch.tensor([survivor[1], 0.0]))
    torch.testing.assert_close(state["exp_avg_sq"], torch.tensor([survivor[2], survivor[2]]))
    assert layer.weight[0, 0].item() == (0.0 if zero else leaver)
    optimizer.step()
    assert layer.weight[0, 0].item() == (0.0 if zero else leaver)  # no drift from stale momentum


def test_an_entrants_first_steps_are_no_longer_than_the_learning_rate():
    layer = nn.Linear(40, 1, bias=False)
    attach(layer, {"weight": (torch.arange(40) < 20).view(1, 40)})
    entries = next(active_tensors(layer))[1]
    optimizer = torch.optim.Adam([entries.values], lr=0.1)

    def step() -> float:
        """The longest way any entry went, with a gradient of 1 everywhere."""
        before = entries.values.detach().clone()
        optimizer.zero_grad()
        layer(torch.ones(1, 40)).sum().backward()
        optimizer.step()
        return float((entries.values.detach() - before).abs().max())

    for _ in range(50):
        step()
    reindex(layer, {"weight": ((torch.arange(40) >= 10) & (torch.arange(40) < 30)).view(1, 40)}, optimizer)
    assert max(step() for _ in range(20)) < 0.101  # 0.65 with a second moment of zero
    reindex(layer, {"weight": (torch.arange(40) >= 35).view(1, 40)}, optimizer)
    assert entries.values not in optimizer.state  # no survivor: a fresh start
    assert 0.099 < step() < 0.101


def test_reindex_can_wake_a_tensor_that_had_no_active_entry():
    layer = nn.Linear(3, 2)
    attach(layer, {"weight": torch.zeros(2, 3, dtype=torch.bool)})
    optimizer = torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=1.0)
    reindex(layer, {"weight": torch.tensor([[True, False, False], [False, False, False]])}, optimizer)
    before = layer.weight.detach().clone()
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    changed = (layer.weight != before).nonzero().tolist()
    assert changed == [[0, 0]]


def test_bad_masks_change_nothing():
    model = bert()
    with pytest.raises(ValueError, match="does not have"):
        attach(model, {**random_masks(model), "nonsense": torch.ones(1).bool()})
    with pytest.raises(ValueError, match=r"is \(2,\), the tensor \(16, 16\)"):
        attach(model, {"bert.pooler.dense.weight": torch.ones(2).bool()})
    assert not list(active_tensors(model)) and all(p.requires_grad for p in model.parameters())
    attach(model, random_masks(model))
    with pytest.raises(ValueError, match="already has active entries"):
        attach(model, random_masks(bert()))
    with pytest.raises(ValueError, match="no active entries to change"):
        reindex(model, {"nonsense": torch.ones(1).bool()})


def test_current_masks_are_those_attached():
    model = bert()
    masks = random_masks(model)
    attach(model, masks)
    found = current_masks(model)
    assert found.keys() == masks.keys() and all(torch.equal(found[n], masks[n]) for n in masks)


def test_an_attached_model_can_be_copied():
    model = bert()
    attach(model, {n: torch.rand_like(p) < 0.03 for n, p in model.named_parameters() if p.dim() == 2})
    ids = torch.arange(1, 9).view(2, 4)
    model(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()  # builds the patterns
    twin = copy.deepcopy(model).eval()
    assert torch.equal(twin(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
