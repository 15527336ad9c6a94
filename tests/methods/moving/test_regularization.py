"""Group Lasso against its formula and autograd; weight decay of sparse tensors alone, through a real Trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from glue_sparse import SparseTrainer
from glue_sparse.core.active import active_tensors, attach
from glue_sparse.core.masks import Masks
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.core.params import encoder_matrices
from glue_sparse.methods.base import Moment
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.methods.gates.diff_gates import DiffGates
from glue_sparse.methods.moving.alternate import Alternate
from glue_sparse.methods.moving.regularization import apply, group_lasso_pull, sparse_group, tile_numbers
from networks import bert
from training import StopAt, trainer
from watching import equal_runs


def some(model: nn.Module, share: float = 0.5) -> Masks:
    """Masks of half the entries of the matrices inside layers."""
    generator = torch.Generator().manual_seed(0)
    return {n: torch.rand(model.get_parameter(n).shape, generator=generator) < share for n in encoder_matrices(model)}


def test_tile_numbers_by_hand():
    shape = torch.Size((4, 6))  # tiles 0 1 2 over 3 4 5
    indices = torch.tensor([0, 3, 5, 6 + 2, 12, 12 + 4, 18 + 1])
    assert tile_numbers(indices, shape, 2).tolist() == [0, 1, 2, 1, 3, 5, 3]
    assert tile_numbers(indices, shape, 1).tolist() == indices.tolist()
    with pytest.raises(ValueError, match="do not divide"):
        tile_numbers(indices, shape, 4)


def test_pull_by_hand():
    # a tile of 2x2 with 3, 4, 0, 0: norm 5, sqrt(B) = 2; another one with a single entry; one of zeros
    values = torch.tensor([3.0, 4.0, -2.0, 0.0])
    numbers = torch.tensor([0, 0, 2, 1])
    assert group_lasso_pull(values, numbers, 3, 2).tolist() == pytest.approx([0.024, 0.032, -0.04, 0])
    # 1x1: towards zero at 0.02, whatever the magnitude, as long as that is far above 1e-3
    assert group_lasso_pull(values, torch.arange(4), 4, 1).tolist() == pytest.approx([0.02, 0.02, -0.02, 0])
    tiny = torch.tensor([1e-3])  # where eps is as large as the square
    assert group_lasso_pull(tiny, torch.zeros(1, dtype=torch.long), 1, 1).item() == pytest.approx(0.02 / 2**0.5)


def test_a_new_tile_is_pulled_as_by_weight_decay():
    values = 0.02 * torch.randn(256, generator=torch.Generator().manual_seed(0))
    pull = group_lasso_pull(values, torch.zeros(256, dtype=torch.long), 1, 16)
    torch.testing.assert_close(pull, values, rtol=0.1, atol=0)


@pytest.mark.parametrize("block_size", [1, 4])
def test_pull_is_the_gradient_of_the_dense_penalty(block_size: int):
    """Of w_std sqrt(B) times the sum over tiles of sqrt(sum of squares + eps)."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(8, 12, generator=generator) < 0.6
    dense = torch.where(mask, torch.randn(8, 12, generator=generator), 0.0).double().requires_grad_(True)
    squares = dense.square().view(8 // block_size, block_size, 12 // block_size, block_size).sum((1, 3))
    (0.02 * block_size * (squares + 1e-6).sqrt().sum()).backward()
    indices = mask.flatten().nonzero().squeeze(1)
    numbers = tile_numbers(indices, mask.shape, block_size)
    pull = group_lasso_pull(dense.detach().flatten()[indices], numbers, 96 // block_size**2, block_size)
    assert dense.grad is not None
    torch.testing.assert_close(pull, dense.grad.flatten()[indices])


@pytest.mark.parametrize("block_size", [1, 2])
def test_apply_pulls_active_entries_at_the_rate_of_their_group(block_size: int):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(2, 2))
    attach(model, {"0.weight": torch.rand(6, 4) < 0.5, "1.weight": torch.rand(2, 6) < 0.5}, "frozen")
    attached = dict(active_tensors(model))
    one, other = attached["0.weight"], attached["1.weight"]
    rest = [p for p in model.parameters() if p.requires_grad and p is not other.values]
    optimizer = torch.optim.SGD([{"params": rest, "lr": 0.1}, {"params": [other.values], "lr": 10.0}])
    before = {name: tensor.clone() for name, tensor in current_tensors(model).items()}
    apply(model, optimizer, 3.0, block_size)
    after = current_tensors(model)
    for entries, name, rate in ((one, "0.weight", 0.1), (other, "1.weight", 10.0)):
        old, mask = before[name], entries.mask()
        rows, columns = old.shape[0] // block_size, old.shape[1] // block_size
        squares = (old * mask).square().view(rows, block_size, columns, block_size).sum((1, 3))
        norms = (squares + 1e-6).sqrt().repeat_interleave(block_size, 0).repeat_interleave(block_size, 1)
        torch.testing.assert_close(after[name], old - mask * rate * 3.0 * 0.02 * block_size * old / norms)
        assert torch.equal(after[name][~mask], old[~mask]) and not torch.equal(after[name][mask], old[mask])
    assert all(torch.equal(after[n], before[n]) for n in before if n not in attached)


def test_apply_refuses_what_does_not_fit():
    model = nn.Sequential(nn.Linear(4, 6))
    attach(model, {"0.weight": torch.ones(6, 4).bool()}, "zero")
    with pytest.raises(ValueError, match=r"tiles of 4x4 do not divide 0\.weight"):
        apply(model, torch.optim.SGD(model.parameters(), lr=0.1), 1.0, 4)
    with pytest.raises(ValueError, match=r"does not train 0\.weight"):
        apply(model, torch.optim.SGD([model.get_parameter("0.bias")], lr=0.1), 1.0, 2)


class Lasso(FixedMask):
    """A fixed mask that is pulled."""

    def gradients_ready(self, model: nn.Module, moment: Moment) -> bool:
        apply(model, moment.optimizer, 0.5, 8)
        return False


class Decayed(FixedMask):
    """A fixed mask with a weight decay of its own."""

    decay = 0.1

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        return sparse_group(model, self.decay)


def test_a_trainer_pulls_before_the_step_and_apart_from_gradients(tmp_path: Path):
    settings: dict[str, Any] = {"optim": "sgd", "max_steps": 1, "learning_rate": 0.1, "weight_decay": 0.0}
    runs = []
    for kind in (FixedMask, Lasso):
        run = trainer(tmp_path, bert(), kind(masks=some(bert()), inactive="zero"), **settings)
        run.train()
        runs.append(run)
    for (name, plain), (_, pulled) in zip(*(active_tensors(run.network) for run in runs), strict=True):
        old = bert().get_parameter(name).detach().flatten()[plain.indices]
        numbers = tile_numbers(plain.indices, plain.shape, 8)
        pull = group_lasso_pull(old, numbers, plain.shape.numel() // 64, 8)
        torch.testing.assert_close(plain.values - pulled.values, 0.1 * 0.5 * pull, rtol=1e-3, atol=1e-6)
    plain, pulled = (current_tensors(run.network) for run in runs)
    assert torch.equal(plain["classifier.weight"], pulled["classifier.weight"])


def decayed(folder: Path, decay: float, **changes: Any) -> SparseTrainer:
    method = Decayed(masks=some(bert()), inactive="zero")
    method.decay = decay
    return trainer(folder, bert(), method, **changes)


def test_a_decay_of_their_own_that_is_the_usual_one_changes_nothing(tmp_path: Path):
    usual = trainer(tmp_path / "a", bert(), FixedMask(masks=some(bert()), inactive="zero"), weight_decay=0.1)
    usual.train()  # before the other is built, which seeds dropout
    own = decayed(tmp_path / "b", 0.1, weight_decay=0.1)
    own.train()
    equal_runs(usual, own)


def test_decay_of_sparse_tensors_alone_and_resumed(tmp_path: Path):
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5, "weight_decay": 0.0}
    whole = decayed(tmp_path / "whole", 0.5, **settings)
    whole.train()
    values = {id(entries.values) for _, entries in active_tensors(whole.network)}
    decays = {id(p): g["weight_decay"] for g in whole.optimizer.param_groups for p in g["params"]}  # type: ignore
    assert all(decay == (0.5 if key in values else 0.0) for key, decay in decays.items())
    assert len(decays) == len([p for p in whole.network.parameters() if p.requires_grad]) > len(values) == 12
    rates = {g["lr"] for g in whole.optimizer.param_groups}  # type: ignore
    assert len(rates) == 1  # they follow the schedule as all others do
    decayed(tmp_path / "cut", 0.5, callbacks=[StopAt(5)], **settings).train()
    resumed = decayed(tmp_path / "cut", 0.5, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-5"))
    equal_runs(whole, resumed)


def test_groups_are_clipped_together_unless_they_say_apart(tmp_path: Path):
    for method, apart in ((Decayed(masks=some(bert())), False), (DiffGates(), True)):
        run = trainer(tmp_path, bert(), method, max_grad_norm=1.0, max_steps=1)
        run.choose()
        run.create_optimizer()
        for p in run.network.parameters():
            p.grad = torch.ones_like(p) if p.requires_grad else None
        (group,) = run.method.param_groups(run.network)
        run._clip_grad_norm(run.network)
        own = {id(p) for p in group["params"]}
        parts = [[p.grad for p in run.network.parameters() if p.grad is not None and (id(p) in own) == inside]
                 for inside in (True, False)]  # fmt: skip
        norms = [float(torch.stack([grad.norm() for grad in part]).norm()) for part in parts]
        expected = [1.0, 1.0] if apart else [norms[0], (1 - norms[0] ** 2) ** 0.5]
        assert norms == pytest.approx(expected, rel=1e-4)
        assert apart or norms[0] < 0.999


def test_the_group_of_a_tensor_survives_phases(tmp_path: Path):
    class Phased(Alternate):
        def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
            return sparse_group(model, 0.5)

    run = trainer(tmp_path, bert(), Phased(4, density=0.2), weight_decay=0.0)
    run.train()
    optimizer: Any = run.optimizer
    assert [id(p) for p in optimizer.param_groups[-1]["params"]] == [
        id(entries.values) for _, entries in active_tensors(run.network)
    ]
