"""Training goes on from a diff only where the model then is base + diff, to the last bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from glue_sparse import DiffInfo, SparseDiff, attach
from glue_sparse.core.active import Inactive, active_tensors
from glue_sparse.core.masks import Masks
from glue_sparse.core.parametrization import current_tensors, model_digest
from glue_sparse.core.params import head_names
from glue_sparse.core.reindexing import reindex
from glue_sparse.methods.moving import checkpoint
from networks import bert


def masks(*positions: int) -> Masks:
    return {"weight": torch.zeros(4, 4, dtype=torch.bool).index_put((torch.tensor(positions) // 4,
            torch.tensor(positions) % 4), torch.tensor(True))}  # fmt: skip


def layer(inactive: Inactive, *positions: int) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Linear(4, 4, bias=False)
    if positions:
        attach(model, masks(*positions), inactive)
    return model


def train(model: nn.Module) -> None:
    for _, entries in active_tensors(model):
        entries.values.data.add_(1)


def content(model: nn.Module) -> torch.Tensor:
    return current_tensors(model)["weight"].detach().clone()


@pytest.mark.parametrize("inactive", ["frozen", "zero"])
@pytest.mark.parametrize("later", [(0, 1), (2, 3)])
def test_what_has_trained_since_is_not_kept(tmp_path: Path, inactive: Inactive, later: tuple[int, ...]):
    model = layer(inactive, 0, 1)
    train(model)
    checkpoint.save(model, DiffInfo(), tmp_path, {})
    reindex(model, masks(*later))
    train(model)
    before = content(model)
    if inactive == "frozen" and later != (0, 1):
        with pytest.raises(ValueError, match="entries of weight have trained that this diff does not hold"):
            checkpoint.restore(model, tmp_path)
        assert torch.equal(content(model), before)
        return
    checkpoint.restore(model, tmp_path)
    (base := layer(inactive)).requires_grad_(True)
    SparseDiff.from_pretrained(tmp_path).merge_into(base)
    assert torch.equal(content(model), content(base))


def test_inactive_entries_are_what_the_diff_says():
    model = layer("frozen", 0, 1)
    train(model)
    diff, other = SparseDiff.from_model(model), layer("zero", 0, 1)
    with pytest.raises(ValueError, match="inactive entries of weight are zero, and of this diff frozen"):
        diff.restore(other)
    diff.restore(same := layer("frozen", 0, 1))
    assert torch.equal(content(same), content(model))


@pytest.mark.parametrize("told", [head_names, lambda model: ()])
def test_a_diff_of_whole_tensors_alone_knows_its_base(told: Callable[[nn.Module], tuple[str, ...]]):
    base, other = bert(seed=0), bert(seed=0)
    digest, before = model_digest(base, told(base)), current_tensors(base)
    before = {name: tensor.detach().clone() for name, tensor in before.items()}
    bias = "bert.encoder.layer.0.output.dense.bias"
    base.get_parameter(bias).data.add_(1)
    diff = SparseDiff.between(before, base, (*head_names(base), bias), DiffInfo(base_digest=digest))
    assert not diff.digests
    with diff.applied(other):
        assert torch.equal(other.get_parameter(bias), base.get_parameter(bias))
    other.get_parameter("bert.encoder.layer.1.output.dense.weight").data[0, 0] += 1
    with pytest.raises(ValueError, match="differs from the base of this diff"):
        diff.merge_into(other)
