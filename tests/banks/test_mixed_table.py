"""The table of `benchmarks/bank_mixed.py`: its cells, and what they are measured on."""

from pathlib import Path

import pytest
import torch

import networks
from glue_sparse.banks.mixed import MixedForward
from glue_sparse.benchmarks import bank_mixed
from mixed_tasks import tokens


def test_a_cell_of_the_table(monkeypatch: pytest.MonkeyPatch):
    model = networks.bert().eval()
    monkeypatch.setattr(bank_mixed, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(
        bank_mixed, "batch_of", lambda rows, length: {**tokens(rows, length), "labels": torch.ones(rows)}
    )
    mixed = MixedForward(model)
    prepared = {f"task {seed}": mixed.prepare(bank_mixed.random_diff(model, seed)) for seed in range(3)}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cell = bank_mixed.cell(mixed, prepared, steps=2, tokens=5, rows=4, count=2)
    assert len(cell.mixed) == len(cell.loop) == 2 and cell.auto in ("mixed", "loop") and cell.difference < 1e-5
    line = cell.line()
    assert line[:3] == ("5", "4", "2") and len(line) == len(bank_mixed.HEADER)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_sizes_and_places(tmp_path: Path):
    assert (64, 128, 32) in [*bank_mixed.sizes(False)] and (64, 128, 32) not in [*bank_mixed.sizes(True)]
    assert all(tasks <= rows for _, rows, tasks in bank_mixed.sizes(False))
    for place in ("b/seed0", "a/seed1", "a/seed0"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "sparse_diff.safetensors").touch()
    assert [place.relative_to(tmp_path).as_posix() for place in bank_mixed.found(tmp_path)] == [
        "a/seed0",
        "b/seed0",
        "a/seed1",
    ]
