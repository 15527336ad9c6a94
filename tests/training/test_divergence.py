"""What is not finite stops a training, names itself, and is never written."""

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback, TrainingArguments

import merging
from glue_sparse import RIGL, DropGrow, FixedMask, OneShot, SparseTrainer, magnitude, noise
from glue_sparse.cli.train import main
from glue_sparse.methods.base import SparseMethod
from glue_sparse.methods.gates.diff_gates import DiffGates
from glue_sparse.training.divergence import Diverged
from networks import bert, collate, examples
from rare import rarely

METHODS: dict[str, SparseMethod] = {
    "fixed": FixedMask(noise, density=0.1),
    "dense": FixedMask(masks={}),
    "one_shot": OneShot(sparsity=0.5),
    "rigl": DropGrow(RIGL, density=0.3),
    "gates": DiffGates(penalty=1e-3),
}


def trainer(folder: Path, method: SparseMethod | None = None, model: Any = None, **options: Any) -> SparseTrainer:
    callbacks = options.pop("callbacks", [])
    settings = {
        "max_steps": 6, "per_device_train_batch_size": 8, "use_cpu": True, "save_strategy": "steps", "save_steps": 2,
        "disable_tqdm": True, "report_to": "none", "learning_rate": 1e-3, "max_grad_norm": 0.0,
    }  # fmt: skip
    return SparseTrainer(
        bert() if model is None else model,
        TrainingArguments(output_dir=str(folder), **{**settings, **options}),
        method=method or FixedMask(noise, density=0.1),
        train_dataset=examples(48),
        data_collator=collate,
        callbacks=callbacks,
    )


def written(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


class Spoil(TrainerCallback):
    """Makes a value or a gradient of the head NaN at a step, with the losses until then as they are."""

    def __init__(self, model: nn.Module, step: int, what: str):
        self.bias, self.step, self.what = model.get_parameter("classifier.bias"), step, what

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step and self.what == "gradient":
            self.bias.grad = torch.full_like(self.bias, math.nan)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step and self.what == "value":
            self.bias.data[0] = math.inf


@pytest.mark.parametrize("name", METHODS)
def test_a_rate_that_is_far_too_high(tmp_path: Path, name: str):
    with pytest.raises(Diverged, match="learning rate 1e\\+30.*`learning_rate`"):
        options = {"learning_rate": 1e30, "save_steps": 1, "optim": "sgd", "lr_scheduler_type": "constant"}
        trainer(tmp_path, METHODS[name], **options).train()
    for path in written(tmp_path):
        assert all(t.isfinite().all() for t in load_file(path).values())


@pytest.mark.parametrize(
    ("kind", "step"), rarely(product(["value", "gradient"], [3, 4, 6]), [("value", 4), ("gradient", 6)])
)
def test_the_last_good_checkpoint_stays(tmp_path: Path, kind: str, step: int):
    """Between checkpoints, at one, and at the last step, whose value no loss has seen."""
    model = bert()
    spoilt = trainer(tmp_path, model=model, callbacks=[Spoil(model, step, kind)])
    with pytest.raises(Diverged, match=f"classifier.bias.*after step {step}|loss of step {step + 1}"):
        spoilt.train()
    good = [f"checkpoint-{number}" for number in (2, 4, 6) if number < step]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == good
    assert trainer(tmp_path / "again", max_steps=6).train(str(tmp_path / good[-1])).global_step == 6
    with pytest.raises(ValueError, match="classifier.bias"):
        spoilt.save_model(str(tmp_path / "mine"))
    with pytest.raises(ValueError, match="classifier.bias"):
        spoilt.sparse_diff().save_pretrained(tmp_path / "mine")
    assert not written(tmp_path / "mine")


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_loss_that_is_not_finite(tmp_path: Path, looks: bool, accumulation: int):
    class Own(SparseTrainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            return loss * math.nan if self.state.global_step == 4 else loss

    spoilt = trainer(tmp_path, gradient_accumulation_steps=accumulation, logging_nan_inf_filter=looks, max_steps=6)
    spoilt.__class__ = Own
    with pytest.raises(Diverged, match="loss of step 5 is not finite at learning rate"):
        spoilt.train()
    assert not (tmp_path / "checkpoint-6").exists() and (tmp_path / "checkpoint-4").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["bert.encoder.layer.1.output.dense.weight", "classifier.bias"])
def test_a_base_that_is_not_finite(tmp_path: Path, name: str, value: float):
    model = bert()
    model.get_parameter(name).data.view(-1)[0] = value
    with pytest.raises(ValueError, match=f"{name} of this model holds numbers that are not finite"):
        trainer(tmp_path, model=model)


def test_diffs_are_refused_by_the_name_of_a_tensor(tmp_path: Path):
    trained = trainer(tmp_path, FixedMask(magnitude, density=0.1), save_strategy="no")
    trained.train()
    diff = trained.sparse_diff()
    bad = next(iter(diff.values))
    diff.values[bad][0] = math.nan
    with pytest.raises(ValueError, match=bad):
        diff.apply(bert())
    with pytest.raises(ValueError, match=bad):
        diff.save_pretrained(tmp_path / "bad")
    assert not written(tmp_path / "bad")


def test_a_mask_of_attention_may_be_infinite(tmp_path: Path):
    model = bert()
    model.register_buffer("mask", torch.full((4, 4), -math.inf).triu(1))
    trained = trainer(tmp_path, model=model, max_steps=2)
    trained.train()
    trained.sparse_diff().save_pretrained(tmp_path)
    model.mask[0, 0] = math.nan  # pyright: ignore
    with pytest.raises(ValueError, match="mask"):
        trained.sparse_diff().save_pretrained(tmp_path)


def test_workers_stop_before_they_merge(tmp_path: Path):
    merged = merging.build(
        tmp_path, "dense", None, None, {"learning_rate": 1e30, "optim": "sgd", "save_strategy": "epoch"}, merge_every=4
    )
    with pytest.raises(Diverged, match="`learning_rate`"):
        merged.run()
    assert not written(tmp_path)


MERGED = ["--merge_every", "2", "--simulate", "true", "--num_workers", "2"]


@pytest.mark.parametrize("more", [[], ["--max_steps", "1"], MERGED])
def test_the_command_line_says_one_sentence(
    tiny_bert: str, rte: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
):
    out = tmp_path / "run"
    words = ["--task", "rte", "--model", tiny_bert, "--data_dir", str(rte), "--method", "random", "--density", "0.1",
             "--num_train_epochs", "1", "--per_device_train_batch_size", "8", "--disable_tqdm", "true", "--use_cpu",
             "true", "--learning_rate", "1e30", "--optim", "sgd", "--max_grad_norm", "0", "--output_dir",
             str(out)]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main([*words, *more])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert end.value.code and len(said) == 1 and "--learning_rate" in said[0]
    assert not (out / "results.json").exists()
    for path in written(out):
        assert all(t.isfinite().all() for t in load_file(path).values())
    for path in out.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is written"))
