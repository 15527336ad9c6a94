"""What a program prints of a model that trains in part, and what its optimizer keeps."""

import pytest
import torch
from torch import nn

from glue_sparse import attach, count_trainable_parameters, detach, print_trainable_parameters
from glue_sparse.core.params import head_names
from glue_sparse.costs.cost import as_facts, cost_of, state_bytes
from glue_sparse.methods.gates.gates import attach_gates
from networks import bert


def everything(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def body_masks(model: nn.Module, share: float) -> dict[str, torch.Tensor]:
    head = head_names(model)
    return {n: torch.rand(p.shape) < share for n, p in model.named_parameters() if n not in head}


def test_before_entries_are_attached_and_after_them_all_weights_train():
    model = bert()
    total = everything(model)
    assert count_trainable_parameters(model) == (total, total)
    attach(model, body_masks(model, 0.1))
    detach(model)
    assert count_trainable_parameters(model)[1] == total


def test_active_entries_the_head_and_what_is_not_frozen_count(capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(0)
    model = bert()
    total, masks = everything(model), body_masks(model, 0.1)
    frozen = next(name for name in head_names(model) if name.endswith("bias"))
    model.get_parameter(frozen).requires_grad_(False)
    attach(model, masks)
    head = sum(model.get_parameter(name).numel() for name in head_names(model) if name != frozen)
    active = sum(int(mask.sum()) for mask in masks.values())
    assert count_trainable_parameters(model) == (active + head, total)
    print_trainable_parameters(model)
    share = 100 * (active + head) / total
    line = f"trainable params: {active + head:,} || all params: {total:,} || trainable%: {share:.4f}\n"
    assert capsys.readouterr().out == line


def test_the_state_of_adam_is_two_numbers_for_each_active_entry():
    torch.manual_seed(0)
    model = bert()
    masks = body_masks(model, 0.1)
    attach(model, masks)
    trained = [p for p in model.parameters() if p.requires_grad]
    for optimizer, per_entry in ((torch.optim.Adam(trained, lr=1e-3), 8), (torch.optim.SGD(trained, momentum=0.9), 4),
                                 (torch.optim.SGD(trained), 0)):  # fmt: skip
        assert state_bytes(optimizer) == 0  # nothing has been kept yet
        for parameter in trained:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        steps = 4 * len(trained) if per_entry == 8 else 0
        assert state_bytes(optimizer) == per_entry * count_trainable_parameters(model)[0] + steps


def test_gates_train_every_entry_of_what_they_are_on():
    model = bert()
    total, body = everything(model), tuple(body_masks(model, 0.1))
    attach_gates(model, body)
    assert count_trainable_parameters(model) == (total, total)


def test_what_was_not_counted_is_no_fact():
    assert "state_bytes" not in as_facts(cost_of(bert()))
