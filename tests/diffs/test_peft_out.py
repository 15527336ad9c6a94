"""Diffs as adapters: peft loads them and answers as the diff does, and they come back as they were."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, ShiraConfig
from safetensors.torch import load_file, save_file
from torch import nn

import decoders
import networks
from adapters import differing, loaded, logits, merged, trained
from documented import ROOT, blocks
from glue_sparse import DiffInfo, SparseDiff, attach, from_peft, load_base, read_diff, to_peft
from glue_sparse.cli import diff as command
from glue_sparse.core.params import head_names
from glue_sparse.diffs.peft_files import KINDS
from glue_sparse.diffs.peft_out import _changes

BASES: dict[str, Any] = {
    "bert": networks.bert,
    "roberta": networks.roberta,
    "llama": lambda: decoders.causal(False),
    "llama classifier": networks.llama,
    "half precision": lambda: decoders.causal(False, torch.bfloat16),
}


def linear_weights(model: nn.Module) -> list[str]:
    return [f"{name}.weight" for name, one in model.named_modules() if isinstance(one, nn.Linear)]


def diff_of(base: Any, names: list[str], most: float = 0.1, seed: int = 0) -> SparseDiff:
    """A diff whose entries are shared out unevenly over some tensors."""
    model, chance = copy.deepcopy(base), torch.Generator().manual_seed(seed)
    body = [name for name, _ in model.named_parameters() if name not in head_names(model)]
    shares = {name: most * (1 + index % 3) / 3 for index, name in enumerate(names)}
    tensors = {name: model.get_parameter(name) for name in body}
    masks = {name: torch.rand(p.shape, generator=chance) < shares.get(name, 0) for name, p in tensors.items()}
    attach(model, masks)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=chance).to(parameter.dtype)
    told: dict[str, Any] = {"num_labels": 2} if head_names(model) else {}
    info = DiffInfo("a base", type(model).__name__, "a task", "fish", density=0.01, **told)
    return SparseDiff.from_model(model, info)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BASES)
def test_peft_answers_as_the_diff_does(name: str, kind: str, tmp_path: Path):
    base = BASES[name]()
    diff = diff_of(base, [one for one in linear_weights(base) if one not in head_names(base)])
    before = copy.deepcopy(base)
    told = to_peft(diff, tmp_path / "adapter", kind, base)
    assert differing(base, before) == [] and told.entries == diff.num_active and told.padded > 0
    is_half = name == "half precision"
    assert told.largest < (2e-2 if is_half else 1e-7) and not (is_half and kind == "shira" and told.inexact)
    assert f"{told.padded:,} without a change" in str(told)
    model = loaded(base, tmp_path / "adapter")
    answers, free = logits(model), logits(base)
    with diff.applied(base):
        tolerance = 1e-6 if not is_half else 0 if kind == "shira" else 5e-2  # supertuning rounds the changes too
        assert (logits(base) - answers).abs().max() <= tolerance < (answers - free).abs().max()
        if name != "roberta":  # which peft cannot merge, see test_peft_in.py
            inexact = sum(int((base.get_parameter(one) != p).sum()) for one, p in merged(model).named_parameters())
            assert inexact == told.inexact
    again = from_peft(tmp_path / "adapter", base).diff
    assert again.info == diff.info and again.shapes == diff.shapes and again.digests == diff.digests
    assert {*again.whole} == {*diff.whole} and all(torch.equal(again.whole[n], one) for n, one in diff.whole.items())
    for one, indices in diff.indices.items():
        assert torch.equal(again.indices[one], indices)
        found, wanted = (values.to(next(base.parameters()).dtype) for values in (again.values[one], diff.values[one]))
        assert (found - wanted).abs().max() <= told.largest


def test_an_adapter_comes_back_as_it_was(tmp_path: Path):
    base = networks.bert()
    model = trained(base, ShiraConfig(r=2, task_type="SEQ_CLS", target_modules=["query", "dense"]), tmp_path / "one")
    told = to_peft(from_peft(tmp_path / "one", base).diff, tmp_path / "two", base=base)
    assert not told.padded
    assert json.loads((tmp_path / "two/adapter_config.json").read_text())["r"] == 2
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    again = loaded(base, tmp_path / "two")
    assert torch.equal(logits(model), logits(again))
    assert differing(merged(model), merged(again)) == []


def test_a_base_in_another_type_is_said(tiny_bert: str, tmp_path: Path):
    info = DiffInfo(tiny_bert, "BertForSequenceClassification", num_labels=2)
    base = load_base(info)
    diff = replace(diff_of(base, [one for one in linear_weights(base) if "query" in one]), info=info)
    to_peft(diff, tmp_path, base=base)
    half = load_base(replace(info, dtype="bfloat16"))
    for found in (from_peft(tmp_path, half), from_peft(tmp_path, dtype="bfloat16")):
        assert found.diff.info.dtype == "bfloat16"
        found.diff.check(load_base(found.diff.info))
    assert from_peft(tmp_path).diff.digest() == diff.digest()


def test_a_header_that_says_no_numbers_is_refused(tmp_path: Path):
    base = networks.bert()
    told = to_peft(diff_of(base, [one for one in linear_weights(base) if "query" in one]), tmp_path, base=base)
    path = told.folder / "adapter_model.safetensors"
    for ours, message in [('{"entries": {"x": "many"}}', "header"), ('{"info": 1}', "header"), ("[]", "adapter_model")]:
        save_file(load_file(path), path, {"format": "pt", "glue_sparse": ours})
        with pytest.raises(ValueError, match=message):
            from_peft(tmp_path, base)


def test_other_modules_are_whole_where_that_is_allowed(tmp_path: Path):
    base = decoders.gpt2_causal()
    untied = copy.deepcopy(base)
    untied.lm_head.weight = nn.Parameter(untied.lm_head.weight.detach().clone())
    untied.config.tie_word_embeddings = False
    names = ["lm_head.weight", "transformer.h.0.ln_1.weight", "transformer.h.1.attn.c_attn.weight"]
    diff = diff_of(untied, names, most=0.3)
    with pytest.raises(ValueError, match=r"ln_1.weight has active entries and is no weight of a linear layer.*2 such"):
        to_peft(diff, tmp_path / "adapter", base=untied)
    assert not (tmp_path / "adapter").exists()
    told = to_peft(diff, tmp_path / "adapter", base=untied, dense=True)
    assert told.whole == ("transformer.h.0.ln_1", "transformer.h.1.attn.c_attn")
    answers = logits(loaded(untied, tmp_path / "adapter"))
    again = from_peft(tmp_path / "adapter", untied).diff
    with diff.applied(untied):
        assert (logits(untied) - answers).abs().max() < 1e-6
    assert {*again.indices} == {*names}  # as entries, and not whole
    assert torch.equal(again.indices[names[2]], diff.indices[names[2]])


def test_what_no_adapter_can_hold_is_refused_in_a_sentence(tmp_path: Path):
    base, tied = networks.bert(), decoders.causal()
    queries = [name for name in linear_weights(base) if "intermediate" in name]
    dense, norms = diff_of(base, queries, 1.5), diff_of(base, ["bert.encoder.layer.0.output.LayerNorm.weight"], 0.9)
    both = diff_of(tied, ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"])
    cases: list[tuple[SparseDiff, Any, str, bool, str]] = [
        (dense, base, "shira", False, r"intermediate.* has fewer than that: train with `distribution` uniform"),
        (dense, base, "lora", False, "`kind` is one of shira"),
        (dense, networks.bert(seed=1), "shira", False, "differs from the base"),
        (norms, base, "shira", True, "no entries in linear"),
        (both, tied, "shira", True, "is tied"),
    ]  # fmt: skip
    for diff, model, kind, whole, message in cases:
        with pytest.raises(ValueError, match=message):
            to_peft(diff, tmp_path / "adapter", kind, model, dense=whole)
    pruned = copy.deepcopy(base)
    attach(pruned, {name: p > 0 for name, p in pruned.named_parameters() if name in queries}, "zero")
    for name, parameter in pruned.named_parameters():
        parameter.requires_grad_("values" in name)
    with pytest.raises(ValueError, match="are zeros"):
        to_peft(SparseDiff.from_model(pruned), tmp_path / "adapter", base=base)
    assert not (tmp_path / "adapter").exists()
    told = to_peft(dense, tmp_path / "adapter", "supertuning", base)
    assert told.entries == dense.num_active


def test_what_fills_up_an_adapter_changes_no_bit():
    zeros = torch.tensor([0.0, -0.0, 1.0])
    for kind in KINDS.values():
        kept = kind.added(zeros, _changes(zeros, zeros))
        assert torch.equal(kept.view(torch.int32), zeros.view(torch.int32))


def test_the_program_of_the_page_runs(tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    info = DiffInfo(tiny_bert, "BertForSequenceClassification", labels=("no", "yes"), num_labels=2)
    base = load_base(info)
    config = LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["query"])
    trained(base, config, Path("path/to/lora"))
    diff = diff_of(base, [name for name in linear_weights(base) if "query" in name])
    replace(diff, info=info).save_pretrained("my_diff")
    names: dict[str, Any] = {}
    (program,) = blocks(ROOT / "docs/peft.md", "python")
    exec(program.replace("0.005", "0.03"), names)
    assert 0 < names["found"].error < 1 and (tmp_path / "lora_diff/README.md").is_file()
    with diff.applied(base):
        assert (logits(base) - logits(names["model"])).abs().max() < 1e-6


def test_the_command_writes_an_adapter(tiny_bert: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    info = DiffInfo(tiny_bert, "BertForSequenceClassification", labels=("no", "yes"), num_labels=2)
    base = load_base(info)
    names = [name for name in linear_weights(base) if "query" in name]
    model = copy.deepcopy(base)
    attach(model, {n: p > 0.03 if n in names else torch.zeros(p.shape, dtype=torch.bool)
                   for n, p in model.named_parameters() if n not in head_names(model)})  # fmt: skip
    decoders.shift(model)
    SparseDiff.from_model(model, info).save_pretrained(tmp_path / "diff", "differences", base)
    places = [str(tmp_path / name) for name in ("diff", "adapter", "again")]
    assert command.main(["to-peft", *places[:2], "--kind", "supertuning"]) == 0
    assert "entries and" in capsys.readouterr().out
    assert command.main(["from-peft", *places[1:]]) == 0
    one, two = (read_diff(places[index]) for index in (0, 2))
    assert two.info == one.info
    with one.applied(base):
        assert (logits(base) - logits(loaded(base, tmp_path / "adapter"))).abs().max() < 1e-6
