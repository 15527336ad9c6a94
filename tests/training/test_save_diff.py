"""Diffs under the Trainers of transformers and trl and in a loop with accelerate: small, and resumed bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainingArguments

from decoders import MESSAGES, PREFERENCES, causal, logits, masks, pruned, tokenizer
from glue_sparse import SaveDiff, SparseDiff, attach, attach_zeros, reference, save_diffs
from networks import bert, collate
from rare import rarely
from training import ROWS

trl = pytest.importorskip("trl")

QUIET: dict[str, Any] = {
    "max_steps": 6, "per_device_train_batch_size": 2, "save_steps": 3, "learning_rate": 1e-2, "report_to": [],
    "use_cpu": True, "disable_tqdm": True, "logging_steps": 1,
}  # fmt: skip


class PlainTrainer(SaveDiff, Trainer):
    pass


class SFT(SaveDiff, trl.SFTTrainer):
    pass


class DPO(SaveDiff, trl.DPOTrainer):
    pass


class GRPO(SaveDiff, trl.GRPOTrainer):
    pass


def plain(folder: Path, model: nn.Module, **changes: Any) -> Trainer:
    args = TrainingArguments(str(folder), **{**QUIET, **changes})
    rows = Dataset.from_list([{key: row[key] for key in ("input_ids", "labels")} for row in ROWS])
    return PlainTrainer(model, args, train_dataset=rows, eval_dataset=rows, data_collator=collate)


def sft(folder: Path, model: nn.Module, **changes: Any) -> Trainer:
    args = trl.SFTConfig(str(folder), **{**QUIET, "bf16": False, "gradient_checkpointing": False, **changes})
    return SFT(model, args, train_dataset=Dataset.from_list(MESSAGES), processing_class=tokenizer())


def dpo(folder: Path, model: nn.Module, ref: Any = reference, **changes: Any) -> Trainer:
    args = trl.DPOConfig(str(folder), **{**QUIET, "bf16": False, "gradient_checkpointing": False, **changes})
    data = Dataset.from_list(PREFERENCES)
    make: Any = DPO
    return make(model, ref_model=ref(model), args=args, train_dataset=data, processing_class=tokenizer())


def grpo(folder: Path, model: nn.Module) -> Trainer:
    args = trl.GRPOConfig(
        str(folder), **{**QUIET, "per_device_train_batch_size": 4}, bf16=False, gradient_checkpointing=False,
        num_generations=4, max_completion_length=8,
    )  # fmt: skip
    prompts = Dataset.from_list([{"prompt": f"say {i}"} for i in range(16)])

    def letters(completions: list[str], **kwargs: Any) -> list[float]:
        return [float(sum(letter.isalpha() for letter in text)) for text in completions]

    make: Any = GRPO
    return make(model, reward_funcs=letters, args=args, train_dataset=prompts, processing_class=tokenizer())


def attached(model: nn.Module) -> nn.Module:
    attach(model, masks(model, 0.01))
    return model


def same(one: nn.Module, other: nn.Module) -> None:
    for name, parameter in one.named_parameters():
        assert torch.equal(other.get_parameter(name), parameter), name


WAYS: dict[str, tuple[Any, Any]] = {
    "Trainer": (plain, bert),
    "sft": (sft, causal),
    "sft half": (sft, lambda: causal(False, torch.bfloat16)),
    "sft packed": (lambda *given: sft(*given, packing=True, max_length=64), causal),
    "sft completions": (lambda *given: sft(*given, assistant_only_loss=True), causal),
    "dpo": (dpo, causal),
    "dpo half": (dpo, lambda: causal(False, torch.bfloat16)),
    "grpo": (grpo, causal),
}


@pytest.mark.parametrize("name", rarely(WAYS, ["Trainer", "sft packed", "sft half", "dpo"]))
def test_a_checkpoint_is_a_diff_and_resumes_bit_for_bit(name: str, tmp_path: Path):
    make, base = WAYS[name]
    whole, resumed, stock = attached(base()), attached(base()), base()
    make(tmp_path / "run", whole).train()
    make(tmp_path / "run", resumed).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    same(whole, resumed)
    folder = tmp_path / "run" / "checkpoint-6"
    names = {path.name for path in folder.iterdir()}
    assert {"sparse_diff.safetensors", "README.md"} <= names and not any("model" in name for name in names)
    SparseDiff.from_pretrained(folder).apply(stock)
    states = stock.state_dict()
    for key, tensor in whole.state_dict().items():
        assert "parametrizations" in key or torch.equal(states[key], tensor), key


@pytest.mark.parametrize("make", [sft, lambda *given: dpo(*given, ref=lambda model: pruned(causal()))])
def test_a_pruned_model_keeps_its_zeros_and_its_diff(make: Any, tmp_path: Path):
    def run(**resume: Any) -> nn.Module:
        model = pruned(causal())
        attach_zeros(model, pattern=(2, 4))
        make(tmp_path, model).train(**resume)
        return model

    whole, resumed = run(), run(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    same(whole, resumed)
    stock = pruned(causal())
    zeros = {name: p == 0 for name, p in stock.named_parameters() if "proj" in name}
    SparseDiff.from_pretrained(tmp_path / "checkpoint-6").apply(stock)
    assert all(torch.equal(stock.get_parameter(name) == 0, zero) for name, zero in zeros.items())
    assert torch.equal(logits(stock), logits(whole))


@pytest.mark.parametrize("name", rarely(["dpo", "dpo half"], ["dpo half"]))
def test_the_implicit_reference_is_the_base(name: str, tmp_path: Path):
    base = WAYS[name][1]
    with_base, implicit = attached(base()), attached(base())
    dpo(tmp_path / "1", with_base, lambda model: base()).train()
    dpo(tmp_path / "2", implicit).train()
    same(with_base, implicit)


def test_the_best_model_comes_back(tmp_path: Path):
    model = attached(bert())
    run = plain(
        tmp_path, model, load_best_model_at_end=True, eval_strategy="steps", eval_steps=3, metric_for_best_model="loss",
        greater_is_better=True,
    )  # fmt: skip
    run.train()
    other = attached(bert())
    SparseDiff.from_pretrained(str(run.state.best_model_checkpoint)).restore(other)
    same(model, other)


def test_what_the_trainer_is_told_to_save_is_the_diff_and_the_model_saves_itself_whole(tmp_path: Path):
    model = attached(causal())
    run = sft(tmp_path / "run", model)
    run.train()
    run.save_model(str(tmp_path / "diff"))
    model.save_pretrained(tmp_path / "whole")  # pyright: ignore
    assert {path.name for path in (tmp_path / "diff").iterdir()} == {"sparse_diff.safetensors", "README.md"}
    found = type(causal()).from_pretrained(tmp_path / "whole")
    assert torch.equal(logits(found), logits(model))


def test_a_model_without_active_entries_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="call attach"):
        plain(tmp_path, bert()).train()


def test_another_mask_is_refused(tmp_path: Path):
    plain(tmp_path, attached(bert())).train()
    model = bert()
    attach(model, masks(model, 0.01, seed=1))
    with pytest.raises(ValueError, match="have trained that this diff does not hold"):
        plain(tmp_path, model).train(resume_from_checkpoint=True)


def loop(folder: Path, model: nn.Module, resume: bool) -> None:
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model, optimizer = accelerator.prepare(model, optimizer)
    save_diffs(accelerator)
    if resume:
        accelerator.load_state(str(folder))
    for step in range(3 if resume else 0, 6):
        if step == 3 and not resume:
            accelerator.save_state(str(folder))
        batch = collate(ROWS[4 * step : 4 * step + 4])
        accelerator.backward(model(**batch).loss)
        optimizer.step()
        optimizer.zero_grad()


def test_a_loop_with_accelerate(tmp_path: Path):
    whole, resumed = (attached(bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)) for _ in range(2))
    loop(tmp_path, whole, False)
    assert not list(tmp_path.glob("model*")) and (tmp_path / "sparse_diff.safetensors").exists()
    loop(tmp_path, resumed, True)
    same(whole, resumed)
