"""Runs of pruned models: what stays zero, tickets, the model on disk, and what a user types."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer

from glue_sparse import SparseDiff, SparseTrainer, attach, magnitude
from glue_sparse.core import mask_file
from glue_sparse.core.active import current_masks
from glue_sparse.core.masks import num_active
from glue_sparse.diffs import pruned_model
from glue_sparse.experiments.run import run
from glue_sparse.experiments.told import parse
from glue_sparse.methods.one_shot import OneShot, trained_magnitude
from networks import bert, collate, examples
from training import trainer

PRUNE = ("--method", "one_shot")


def no_data(num_samples: int) -> tuple[()]:
    return ()


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "sgd"])
def test_pruned_weights_stay_zero_and_all_else_trains(tmp_path: Path, optim: str):
    model = bert()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    work = trainer(tmp_path, model, OneShot(sparsity=0.6), optim=optim)
    work.train()
    assert work.cost and work.cost.sparsity == pytest.approx(0.6, abs=1e-3) and work.cost.zero_entries == 2458
    diff = work.sparse_diff()
    kept = current_masks(model)
    for name, mask in kept.items():
        weight = diff.own_masks()[name]
        assert torch.equal(weight, mask)
    plain = bert()
    diff.apply(plain)
    for name, parameter in plain.named_parameters():
        if name in kept:
            mask = kept[name]
            assert not parameter[~mask].any() and not torch.equal(parameter[mask], before[name][mask])
        elif not any(part in name for part in ("position", "token_type", "key.bias")):
            assert not torch.equal(parameter, before[name]), name


def test_resumed_pruned_run_equals_uninterrupted_run(tmp_path: Path):
    whole = trainer(tmp_path / "whole", bert(), OneShot(sparsity=0.5))
    whole.train()
    part = trainer(tmp_path / "part", bert(), OneShot(sparsity=0.5), save_strategy="steps", save_steps=7)
    part.train()
    again = trainer(tmp_path / "part", bert(), OneShot(sparsity=0.5))
    again.train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-7"))
    assert whole.sparse_diff().digest() == again.sparse_diff().digest()


def test_a_ticket_removes_the_smallest_trained_weights_and_goes_back(tmp_path: Path):
    diffs = {}
    for round_, (sparsity, method) in enumerate({0.0: None, 0.1: 0.0, 0.19: 0.1}.items()):
        score = partial(trained_magnitude, earlier=diffs[method]) if method is not None else magnitude
        work = trainer(tmp_path / str(round_), bert(), OneShot(score, sparsity=sparsity))
        work.choose()
        kept = current_masks(work.network)
        plain = bert()
        attach(plain, kept, "zero")
        for (_, now), (_, expected) in zip(work.network.named_parameters(), plain.named_parameters(), strict=True):
            assert torch.equal(now, expected)  # rewound: pretrained values, and zeros
        if method is not None:
            trained, before = bert(), diffs[method]
            before.apply(trained)
            names = list(kept)
            everything = torch.cat([trained.get_parameter(n).detach().abs().flatten() for n in names])
            alive = torch.cat([before.own_masks()[n].flatten() for n in names])
            mask = torch.cat([kept[n].flatten() for n in names])
            assert not (mask & ~alive).any() and everything[mask].min() >= everything[alive & ~mask].max()
        work.train()
        diffs[sparsity] = work.sparse_diff()
    with pytest.raises(ValueError, match="would bring back"):
        OneShot(earlier=diffs[0.19], sparsity=0.1).prepare(bert(), (), no_data)
    with pytest.raises(ValueError, match="would bring back"):
        OneShot(earlier=diffs[0.19], sparsity=0.2, distribution="uniform").prepare(bert(), (), no_data)
    with pytest.raises(ValueError, match="not from the model given now"):
        trained_magnitude(bert(seed=1), (), earlier=diffs[0.1])


def test_the_pruned_model_is_an_ordinary_one_and_trains_on(tmp_path: Path, tiny_bert: str):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    work = trainer(tmp_path / "run", model, OneShot(sparsity=0.5), max_steps=3)
    work.train()
    model.eval()
    batch = {key: value for key, value in collate(examples(4)).items() if key != "labels"}
    with torch.no_grad():
        expected = model(**batch).logits
    folder = tmp_path / "model"
    pruned_model.write(model, AutoTokenizer.from_pretrained(tiny_bert), folder)
    stock, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(stock.eval()(**batch).logits, expected)
    kept, inactive = mask_file.load(folder / "masks.safetensors")
    assert inactive == "zero" and all(not stock.get_parameter(name)[~mask].any() for name, mask in kept.items())
    facts = json.loads((folder / "sparsity.json").read_text())
    entries = sum(p.numel() for p in stock.parameters())
    assert facts["sparsity_of_masked"] == 0.5 and facts["zero_entries"] == num_active(kept)
    assert facts["sparsity_of_model"] == facts["zero_entries"] / entries


def test_a_diff_of_a_pruned_run_restores_zeros_exactly(tmp_path: Path):
    work = trainer(tmp_path, bert(), OneShot(sparsity=0.7), max_steps=2)
    work.train()
    path = work.sparse_diff().save_pretrained(tmp_path)
    diff = SparseDiff.from_pretrained(path)
    assert diff.sparsity == pytest.approx(0.7, abs=1e-3)
    model = bert()
    kept = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with diff.applied(model):
        assert float((model.get_parameter("bert.encoder.layer.0.output.dense.weight") == 0).float().mean()) > 0.5
    assert all(torch.equal(parameter, kept[name]) for name, parameter in model.named_parameters())


def run_once(folder: Path, glue: Path, model: str, *words: str) -> Any:
    """A short run through the command line's own path."""
    common = ["--task", "rte", "--data_dir", str(glue), "--max_steps", "4", "--per_device_train_batch_size", "8",
              "--use_cpu", "true", "--config", "none", "--disable_tqdm", "true", "--report_to", "none",
              "--save_strategy", "no", "--learning_rate", "1e-3"]  # fmt: skip
    return run(parse([*common, "--model", model, "--output_dir", str(folder), *words]))


def zeros(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / "model" / "model.safetensors")
    kept, _ = mask_file.load(folder / "model" / "masks.safetensors")
    assert all(not tensors[name][~mask].any() for name, mask in kept.items())
    return {name: ~mask for name, mask in kept.items()}


def test_prune_save_and_train_on_with_the_mask(tmp_path: Path, rte: Path, tiny_bert: str):
    first = run_once(tmp_path / "a", rte, tiny_bert, *PRUNE, "--sparsity", "0.7", "--save_model", "true")
    assert first.cost["sparsity"] == pytest.approx(0.7, abs=1e-4) and first.cost["model_sparsity"] < 0.7
    facts = json.loads((tmp_path / "a" / "model" / "sparsity.json").read_text())
    assert facts["sparsity_of_masked"] == first.cost["sparsity"]
    assert facts["zero_entries"] == first.cost["zero_entries"]
    folder = str(tmp_path / "a" / "model")
    text = (tmp_path / "a" / "model" / "README.md").read_text()
    assert f"{facts['zero_entries']:,} of {facts['masked_entries']:,} (70.0" in text and "RTE (subset)" in text
    words = ["--method", "fixed_mask", "--mask_file", folder, "--save_model", "true"]
    second = run_once(tmp_path / "b", rte, folder, *words)
    assert second.cost["zero_entries"] == first.cost["zero_entries"]
    one, two = zeros(tmp_path / "a"), zeros(tmp_path / "b")
    assert all(torch.equal(one[name], two[name]) for name in one)
    before, after = (load_file(tmp_path / run / "model" / "model.safetensors") for run in "ab")
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(before[name], after[name])


def test_a_mask_of_another_kind_of_task_leaves_the_head_alone(tmp_path: Path, rte: Path, tiny_bert: str):
    model = AutoModelForQuestionAnswering.from_pretrained(tiny_bert)
    work = trainer(tmp_path, model, OneShot(sparsity=0.5))
    work.choose()
    work.sparse_diff().save_pretrained(tmp_path / "squad")
    words = ["--method", "fixed_mask", "--mask_file", str(tmp_path / "squad"), "--save_model", "true"]
    found = run_once(tmp_path / "rte", rte, tiny_bert, *words)
    head = load_file(tmp_path / "rte" / "model" / "model.safetensors")["classifier.weight"]
    assert found.cost["sparsity"] == 0.5 and head.all()


@pytest.mark.slow
def test_a_ticket_from_the_command_line(tmp_path: Path, rte: Path, tiny_bert: str):
    dense, ticket = str(tmp_path / "dense"), ["--method", "lottery_ticket", "--start_diff"]
    run_once(tmp_path / "dense", rte, tiny_bert, "--method", "one_shot", "--sparsity", "0.0")
    found = run_once(tmp_path / "one", rte, tiny_bert, *ticket, dense, "--sparsity", "0.3")
    assert found.cost["zero_entries"] == round(0.3 * found.cost["masked_entries"])
    with pytest.raises(ValueError, match="would bring back"):
        run_once(tmp_path / "two", rte, tiny_bert, *ticket, str(tmp_path / "one"), "--sparsity", "0.1")
    run_once(tmp_path / "fish", rte, tiny_bert, "--method", "random", "--density", "0.2")
    with pytest.raises(ValueError, match="pruned nothing"):
        run_once(tmp_path / "two", rte, tiny_bert, *ticket, str(tmp_path / "fish"), "--sparsity", "0.3")


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "magnitude", "--sparsity", "0.7"],
        ["--method", "lottery_ticket", "--criterion", "random"],
        ["--method", "bitfit", "--distribution", "erk"],
        ["--method", "one_shot", "--pattern", "2:4", "--sparsity", "0.9"],
        ["--method", "one_shot", "--pattern", "124"],
        ["--method", "one_shot", "--inactive", "zero"],
    ],
)
def test_flags_that_would_do_nothing_are_refused(words: list[str]):
    with pytest.raises(ValueError, match="is not for --method|goes with --method|leave --sparsity|is KEPT:GROUP"):
        parse(["--task", "rte", "--model", "minilm", *words])


def test_all_points_of_a_curve_start_alike(tmp_path: Path, rte: Path, tiny_bert: str, monkeypatch: pytest.MonkeyPatch):
    """The same head and the same batches at every sparsity: both are functions of the seed alone."""
    seen: dict[str, list[torch.Tensor]] = {}

    def noted(self: SparseTrainer, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if model.training:
            seen.setdefault(str(self.args.output_dir), []).append(inputs["input_ids"].clone())
        return original(self, model, inputs, *args, **kwargs)

    original = SparseTrainer.compute_loss
    monkeypatch.setattr(SparseTrainer, "compute_loss", noted)
    heads = []
    for sparsity in ("0.0", "0.8"):
        folder = tmp_path / sparsity
        words = ["--method", "one_shot", "--sparsity", sparsity, "--seed", "3", "--learning_rate", "0"]
        run_once(folder, rte, tiny_bert, *words, "--save_model", "true")
        heads.append(load_file(folder / "model" / "model.safetensors")["classifier.weight"])
    assert torch.equal(*heads)
    one, two = seen.values()
    assert len(one) == len(two) == 4 and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
