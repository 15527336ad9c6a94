"""The base is there once: choosing, attaching, training and saving copy no part of it that grows with the model."""

import multiprocessing as mp
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from glue_sparse.arguments.training import RunArguments
from glue_sparse.benchmarks import large, memory
from glue_sparse.benchmarks.training import tensor_peak
from glue_sparse.cli import benchmark
from glue_sparse.core import pieces
from glue_sparse.core.active import attach
from glue_sparse.core.masks import select
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.scores.scores import magnitude, noise
from glue_sparse.training.trainer import SparseTrainer


@pytest.mark.parametrize("score", [magnitude, noise])
def test_choosing_and_attaching_take_a_fraction_of_the_model(score: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pieces, "SIZE", 1 << 14)
    monkeypatch.setattr("glue_sparse.scores.scores.SIZE", 1 << 14)
    model = nn.Linear(2048, 2048, bias=False).bfloat16()  # 8 MiB; 4 as bool masks, 16 as float32 scores

    def chosen() -> None:
        attach(model, select(score(model, ("weight",)), 20_000))

    assert tensor_peak(chosen, 0) < 2.5 * 2**20


class _Words(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(i, i + 8)
        return {"input_ids": ids, "labels": ids}


def _trained(folder: str, share: Any) -> None:
    model = large.decoder("0.1b", torch.float32)
    base = sum(parameter.nbytes for parameter in model.parameters())
    model(input_ids=torch.zeros(1, 8, dtype=torch.long))
    held = memory.now(torch.device("cpu"))
    with memory.used(torch.device("cpu")) as used:
        args = RunArguments(output_dir=folder, max_steps=2, per_device_train_batch_size=1, report_to="none",
                            save_strategy="steps", save_steps=1)  # fmt: skip
        trainer = SparseTrainer(model, args, method=FixedMask(magnitude, density=0.005), train_dataset=_Words())
        trainer.train()
    share.value = (used.peak - held) / base


@pytest.mark.slow
def test_a_training_holds_no_copy_of_the_base(tmp_path: Path):
    context = mp.get_context("spawn")
    share = context.Value("d", -1.0)
    worker = context.Process(target=_trained, args=(str(tmp_path), share))
    worker.start()
    worker.join()
    assert 0 < share.value < 0.2  # a bool mask of each entry would be 0.25


@pytest.mark.slow
def test_the_phases_of_a_large_model_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert benchmark.main(["--large", "tiny", "--steps", "1", "--out", str(tmp_path / "large.json")]) == 0
    shown = capsys.readouterr().out
    assert all(f"| {method} " in shown for method in large.METHODS)
    assert '"shira"' in (tmp_path / "large.json").read_text()


def test_flags_of_large_models_go_with_it(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        benchmark.main(["--dtype", "bfloat16"])
    assert "--dtype has no effect without --large" in capsys.readouterr().err
