"""Values in bfloat16: steps are rounded, stochastically where it is asked for, and a resumed run is the same run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from decoders import causal
from glue_sparse.arguments.training import RunArguments
from glue_sparse.core.active import active_tensors, attach
from glue_sparse.core.masks import select
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.core.params import body_names
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.scores.scores import noise
from glue_sparse.training.half_values import half_values
from glue_sparse.training.trainer import SparseTrainer


def attached(dtype: torch.dtype = torch.bfloat16, budget: int = 500) -> Any:
    model = causal(dtype=dtype)
    attach(model, select(noise(model, body_names(model, ())), budget))
    return model


def values(model: nn.Module) -> Tensor:
    return torch.cat([entries.values.detach().float() for _, entries in active_tensors(model)])


def stepped(model: Any, stochastic: bool, rate: float, steps: int) -> Tensor:
    """How far all values have moved by so many steps of SGD with gradients of 1, in means."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    half_values(model, optimizer, stochastic=stochastic, seed=3)
    with torch.no_grad():
        for _, entries in active_tensors(model):
            entries.values.fill_(1.5)
    for _ in range(steps):
        for _, entries in active_tensors(model):
            entries.values.grad = torch.ones_like(entries.values) if entries.num_active else None
        optimizer.step()
    return values(model)


def test_small_steps_move_values_on_average_and_never_by_rounding_to_the_nearest():
    rate = 2.0**-11  # numbers near 1.5 are 2^-7 apart
    assert torch.equal(stepped(attached(), False, rate, 64), torch.full((500,), 1.5))
    moved = 1.5 - stepped(attached(), True, rate, 64)
    right = 64 * rate
    spread = (64 * rate * 2.0**-7) ** 0.5 / 500**0.5  # of a mean of 500 sums of 64 chances
    assert abs(float(moved.mean()) - right) < 5 * spread and len(moved.unique()) > 2


def test_values_are_what_the_weights_hold_and_state_is_float32():
    model = attached()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    half_values(model, optimizer)
    ids = torch.randint(3, 200, (2, 6), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, entries in active_tensors(model):
        assert entries.values.dtype == torch.bfloat16
        held = current_tensors(model)[name].flatten()[entries.indices]
        assert torch.equal(held, entries.values.detach())
        if entries.num_active:
            assert optimizer.state[entries.values]["exp_avg_sq"].dtype == torch.float32


def test_a_state_that_is_loaded_stays_float32():
    models = [attached(), attached()]
    optimizers = [torch.optim.AdamW([p for p in one.parameters() if p.requires_grad], lr=1e-3) for one in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        half_values(model, optimizer)
    ids = torch.randint(3, 200, (2, 6), generator=torch.Generator().manual_seed(0))
    models[0](input_ids=ids, labels=ids).loss.backward()
    optimizers[0].step()
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    for (_, one), (_, other) in zip(*map(active_tensors, models), strict=True):
        if one.num_active:
            mine, theirs = optimizers[0].state[one.values], optimizers[1].state[other.values]
            assert theirs["exp_avg"].dtype == torch.float32 and torch.equal(mine["exp_avg"], theirs["exp_avg"])
            assert other.values.dtype == torch.bfloat16


class Words(Dataset):
    """Random words."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        ids = torch.randint(3, 200, (6,), generator=torch.Generator().manual_seed(i))
        return {"input_ids": ids, "labels": ids}


def trainer(folder: Path, model: Any = None, **changes: Any) -> SparseTrainer:
    told: dict[str, Any] = {
        "output_dir": str(folder), "per_device_train_batch_size": 2, "max_steps": 4, "save_steps": 2,
        "report_to": "none", "learning_rate": 1e-3, "values_dtype": "bfloat16", "stochastic_rounding": True,
        "disable_tqdm": True, "save_strategy": "steps",
    }  # fmt: skip
    model = causal(dtype=torch.bfloat16) if model is None else model
    return SparseTrainer(model, RunArguments(**{**told, **changes}), method=FixedMask(noise, density=0.05),
                         train_dataset=Words())  # fmt: skip


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path):
    whole, again = trainer(tmp_path / "whole"), trainer(tmp_path / "again")
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-2"))
    nearest = trainer(tmp_path / "nearest", stochastic_rounding=False)
    nearest.train()
    assert torch.equal(values(whole.network), values(again.network))
    assert not torch.equal(values(whole.network), values(nearest.network))
    assert all(entries.values.dtype == torch.bfloat16 for _, entries in active_tensors(again.network))
    diff = whole.sparse_diff()
    model = causal(dtype=torch.bfloat16)
    diff.apply(model)
    for name, tensor in current_tensors(whole.network).items():
        assert torch.equal(current_tensors(model)[name], tensor), name


def test_trained_again_it_rounds_once(tmp_path: Path):
    one = trainer(tmp_path, save_strategy="no")
    one.train()
    one.train()
    assert all(entries.values.dtype == torch.bfloat16 for _, entries in active_tensors(one.network))
    assert len(one.optimizer.optimizer._optimizer_step_pre_hooks) == 1  # pyright: ignore
    with pytest.raises(ValueError, match="call half_values once"):
        half_values(one.network, one.optimizer.optimizer)  # pyright: ignore


def test_what_cannot_be_had_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="is for a model in bfloat16"):
        trainer(tmp_path, causal())
    with pytest.raises(ValueError, match="entries that stay the same"):
        SparseTrainer(causal(dtype=torch.bfloat16), RunArguments(output_dir=str(tmp_path), values_dtype="bfloat16"),
                      method=FixedMask(noise, update_every=2), train_dataset=Words())  # fmt: skip
    model = attached(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="is not bfloat16"):
        half_values(model, optimizer)
    with pytest.raises(ValueError, match="no active entries"):
        half_values(causal(), optimizer)
