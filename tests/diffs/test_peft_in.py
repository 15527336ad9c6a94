"""Diffs of adapters that peft has trained have the bits of its merged models."""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, ShiraConfig, SupertuningConfig
from safetensors.torch import load_file, save_file

import decoders
import networks
from adapters import differing, logits, merged, trained
from glue_sparse import SparseDiff, attach, from_peft
from glue_sparse.cli import diff as command
from glue_sparse.diffs.peft_in import FromPeft
from glue_sparse.writing import extras
from rare import rarely

BERT = {"task_type": "SEQ_CLS", "target_modules": ["query", "dense"]}
QUERY = {"task_type": "SEQ_CLS", "target_modules": ["query", "intermediate.dense"]}
WORDS = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "down_proj"]}
GPT2 = {"task_type": "CAUSAL_LM", "target_modules": ["c_attn", "c_fc"]}
UNTIED = partial(decoders.causal, False)
HALF = partial(decoders.causal, False, torch.bfloat16)
SPARSE: dict[str, tuple[Any, Any]] = {
    "shira, bert": (networks.bert, ShiraConfig(r=2, **BERT)),
    "shira of another r, two-layer head": (networks.roberta, ShiraConfig(r=1, random_seed=3, **QUERY)),
    "shira, llama": (UNTIED, ShiraConfig(r=3, **WORDS)),
    "shira, half precision": (HALF, ShiraConfig(r=3, **WORDS)),
    "super-tuning, bert": (networks.bert, SupertuningConfig(sparsity=0.9, **BERT)),
    "super-tuning, half precision": (
        HALF, SupertuningConfig(sparsity=0.8, select_top=False, **WORDS),
    ),
}  # fmt: skip


def check_same(found: FromPeft, base: Any, model: Any, tolerance: float = 1e-6, merges: bool = True) -> None:
    """The diff in the base is what peft merges, and answers as the adapter does."""
    answers = logits(model)
    assert (answers - logits(base)).abs().max() > 1e-3
    with found.diff.applied(base):
        assert not merges or differing(base, merged(model)) == []
        assert (logits(base) - answers).abs().max() <= tolerance


@pytest.mark.parametrize("kind", SPARSE)
def test_sparse_adapters_are_read_entry_by_entry(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make, config = SPARSE[kind]
    base = make()
    model = trained(base, config, tmp_path)
    monkeypatch.setattr("glue_sparse.diffs.peft_merge.needed", lambda *_: pytest.fail("peft was asked"))
    found = from_peft(tmp_path, base)
    entries = sum(one.numel() for name, one in load_file(tmp_path / "adapter_model.safetensors").items()
                  if "shira_weight" in name or "supertuning_values" in name)  # fmt: skip
    assert found.diff.num_active == entries > 0 == found.error
    assert found.diff.info.method == config.peft_type.value.lower()
    merges = "two-layer" not in kind  # peft asks such a head for its weight as it merges, and there is none
    check_same(found, base, model, 2e-2 if "half" in kind else 1e-6, merges)
    found.diff.save_pretrained(tmp_path / "diff")
    assert SparseDiff.from_pretrained(tmp_path / "diff").digest() == found.diff.digest()


DENSE: dict[str, tuple[Any, Any]] = {
    "lora": (networks.bert, LoraConfig(r=2, **BERT)),
    "rslora and ranks per layer": (
        networks.bert,
        LoraConfig(r=2, use_rslora=True, rank_pattern={"layer.0.*": 3}, alpha_pattern={"layer.1.*": 9}, **BERT),
    ),
    "dora": (UNTIED, LoraConfig(r=2, use_dora=True, **WORDS)),
    "lora with biases": (networks.bert, LoraConfig(r=2, bias="all", **BERT)),
    "lora with its own biases": (networks.bert, LoraConfig(r=2, bias="lora_only", **BERT)),
    "lora with a module": (networks.bert, LoraConfig(r=2, modules_to_save=["pooler"], **QUERY)),
    "lora of a transposed layer": (decoders.gpt2_causal, LoraConfig(r=2, fan_in_fan_out=True, **GPT2)),
    "lora, half precision": (HALF, LoraConfig(r=2, **WORDS)),
    "ia3": (networks.bert, peft.IA3Config(feedforward_modules=["intermediate.dense"], **QUERY)),
    "ia3, two-layer head": (networks.roberta, peft.IA3Config(feedforward_modules=["intermediate.dense"], **QUERY)),
    "vera": (networks.bert, peft.VeraConfig(r=4, **{**BERT, "target_modules": ["query"]})),
    "adalora": (UNTIED, peft.AdaLoraConfig(total_step=10, init_r=4, **WORDS)),
    "super-tuning and lora": (networks.bert, SupertuningConfig(sparsity=0.9, r=2, lora_alpha=4, **BERT)),
    "hira": (networks.bert, peft.HiraConfig(r=2, **BERT)),
    "boft": (networks.bert, peft.BOFTConfig(boft_block_size=4, **BERT)),
    "loha": (networks.bert, peft.LoHaConfig(r=2, **BERT)),
    "fourierft": (networks.bert, peft.FourierFTConfig(n_frequency=20, **BERT)),
}  # fmt: skip


@pytest.mark.parametrize("kind", rarely(DENSE, [*DENSE][:13]))
def test_other_methods_are_merged_by_peft(kind: str, tmp_path: Path):
    make, config = DENSE[kind]
    base = make()
    before, model = copy.deepcopy(base), trained(base, config, tmp_path)
    state = torch.random.get_rng_state()
    with pytest.raises(ValueError, match="changes all of .* say which share of the weights to keep"):
        from_peft(tmp_path, base)
    found = from_peft(tmp_path, base, density=1.0)
    assert torch.equal(state, torch.random.get_rng_state()) and differing(base, before) == []
    assert found.error == 0 and "with the bits of the merged model" in str(found)
    check_same(found, base, model, 2e-2 if "half" in kind else 2e-6, "two-layer" not in kind)


LITTLE: dict[str, tuple[Any, Any]] = {
    "norms": (UNTIED, peft.LNTuningConfig(task_type="CAUSAL_LM", target_modules=["input_layernorm"])),
    "norms and a head": (networks.bert, peft.LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"])),
    "tokens": (UNTIED, peft.TrainableTokensConfig(token_indices=[7, 9], target_modules=["embed_tokens"])),
    "words that were seen": (UNTIED, LoraConfig(r=2, **{**WORDS, "target_modules": ["embed_tokens"]})),
    "indices left out": (networks.bert, SupertuningConfig(sparsity=0.9, save_precomputed_indices=False, **BERT)),
}


@pytest.mark.parametrize("kind", LITTLE)
def test_what_changes_little_is_exact_without_a_density(kind: str, tmp_path: Path):
    make, config = LITTLE[kind]
    base = make()
    model = trained(base, config, tmp_path)
    found = from_peft(tmp_path, base)
    assert found.diff.num_active < 0.15 * sum(p.numel() for p in base.parameters())
    check_same(found, base, model, merges="head" not in kind)  # peft forgets to unwrap a head beside norms


def test_the_largest_changes_are_kept_and_the_error_is_said(tmp_path: Path):
    base = networks.bert()
    model = merged(trained(base, LoraConfig(r=2, **BERT), tmp_path))
    found = from_peft(tmp_path, base, density=0.2)
    num = sum(p.numel() for p in base.parameters())
    assert found.diff.num_entries == round(0.2 * num) and found.diff.info.density == 0.2
    cut, norms, worst = 0.0, 0.0, 0.0
    for name, old in base.named_parameters():
        if name in found.diff.whole:
            continue
        change = (model.get_parameter(name) - old).detach().flatten().double()
        norm, kept = change.square().sum(), found.diff.positions(name)
        if len(kept):
            assert change[kept].abs().min() > 0
            change[kept] = 0
        cut, norms = cut + float(change.square().sum()), norms + float(norm)
        worst = max(worst, float((change.square().sum() / norm).sqrt()) if norm else 0.0)
    assert found.error == pytest.approx((cut / norms) ** 0.5) and 0.1 < found.error < 1
    assert found.worst == pytest.approx(worst) and f"{found.error:.4f}" in str(found)
    larger = from_peft(tmp_path, base, density=0.4)
    assert larger.error < found.error
    smallest = min(float((found.diff.values[n] - base.get_parameter(n).flatten()[found.diff.positions(n)]).abs().min())
                   for n in found.diff.values)  # fmt: skip
    again = from_peft(tmp_path, base, threshold=smallest * 0.999999)
    assert again.diff.digest() == found.diff.digest()


def test_a_sparse_adapter_may_be_pruned_too(tmp_path: Path):
    base = networks.bert()
    trained(base, ShiraConfig(r=2, **BERT), tmp_path)
    found = from_peft(tmp_path, base, density=0.1)
    assert 0 < found.error < 1 and found.diff.num_active < from_peft(tmp_path, base).diff.num_active


def test_a_classifier_is_loaded_by_what_the_adapter_says(tiny_bert: str, tmp_path: Path, capsys: Any):
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    for config, more in [(ShiraConfig(r=1, **BERT), []), (LoraConfig(r=1, **BERT), ["--density", "0.5"])]:
        folder, out = (str(tmp_path / f"{config.peft_type.value}{end}") for end in ("", "_diff"))
        model = trained(base, config, Path(folder))
        assert command.main(["from-peft", folder, out, *more]) == 0
        said = capsys.readouterr().out
        assert ("relative error" in said) == bool(more)
        assert ("relative error" in (Path(out) / "README.md").read_text()) == bool(more)
        diff = SparseDiff.from_pretrained(out)
        assert diff.info.num_labels == 3 and diff.info.base_model == tiny_bert
        if not more:
            diff.apply(base)
            assert (logits(base) - logits(model)).abs().max() < 1e-6
            diff.remove(base)


def test_what_cannot_be_is_refused_in_a_sentence(tmp_path: Path):
    base = decoders.causal(False)
    shira, lora, prompts = (tmp_path / name for name in ("shira", "lora", "prompts"))
    trained(base, ShiraConfig(r=2, **WORDS), shira)
    trained(base, LoraConfig(r=2, **WORDS), lora)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    peft.get_peft_model(copy.deepcopy(base), config).save_pretrained(str(prompts))
    wide = decoders.causal(False, hidden_size=48)
    deep = decoders.causal(False, num_hidden_layers=1)
    cases: list[tuple[Path, Any, dict[str, Any], str]] = [
        (prompts, base, {}, "prompt_tuning adds tokens to the input and changes no weight"),
        (shira, wide, {}, r"q_proj.weight \[48, 48\] is not what this adapter changes|is not what"),
        (shira, deep, {}, "has no model.layers.1"),
        (lora, wide, {"density": 0.5}, "does not fit this model"),
        (lora, deep, {"density": 0.5}, "has no place for model.layers.1"),
        (lora, networks.bert(), {"density": 0.5}, "does not fit this model"),
        (lora, base, {"density": 0.5, "threshold": 1.0}, "not both"),
        (tmp_path, base, {}, "several adapters, lora, prompts, shira"),
        (tmp_path / "none", base, {}, "does not exist"),
    ]
    for folder, model, options, message in cases:
        with pytest.raises(ValueError, match=message):
            from_peft(folder, model, **options)
    with pytest.raises(ValueError, match="active entries of its own"):
        attach(base, decoders.masks(base))
        from_peft(shira, base)


def test_a_merge_that_answers_otherwise_is_no_diff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base = networks.bert()
    trained(base, LoraConfig(r=2, **BERT), tmp_path)
    monkeypatch.setattr(peft.LoraModel, "merge_and_unload", peft.LoraModel.unload)
    with pytest.raises(ValueError, match="this lora adapter answers otherwise than the adapter itself"):
        from_peft(tmp_path, base, density=1.0)


def test_tied_tensors_need_an_untied_base(tmp_path: Path):
    base = decoders.causal(False)
    config = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["lm_head"])
    trained(base, config, tmp_path)
    with pytest.raises(ValueError, match="lm_head.weight is tied .* tie_word_embeddings=False"):
        from_peft(tmp_path, decoders.causal(True), density=0.5)


def test_no_pickle_is_opened(tmp_path: Path):
    base = networks.bert()
    trained(base, ShiraConfig(r=2, **BERT), tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match="a pickle, which can run any code"):
        from_peft(tmp_path, base)


def test_damaged_adapters_are_refused(tmp_path: Path):
    base = networks.bert()
    trained(base, ShiraConfig(r=2, **BERT), tmp_path)
    path, told = tmp_path / "adapter_model.safetensors", (tmp_path / "adapter_config.json").read_text()
    good = load_file(path)
    name = next(name for name in good if name.endswith("shira_indices"))
    head = next(name for name in good if name.endswith("classifier.weight"))
    outside, twice = good[name].clone(), good[name].clone()
    outside[0, 0] = 1000
    twice[:, 0] = twice[:, 1]
    for bad, message in [
        ({name: outside}, "outside of the weight"),
        ({name: twice}, "an entry twice"),
        ({name: -good[name] - 1}, "outside of the weight"),
        ({head: torch.zeros(5, 16)}, r"classifier.weight is \[5, 16\] in the adapter and \[2, 16\]"),
    ]:
        save_file({**good, **bad}, path)
        with pytest.raises(ValueError, match=message):
            from_peft(tmp_path, base)
    layer = "base_model.model.bert.embeddings.LayerNorm.shira"
    places = torch.arange(32, dtype=torch.int32).remainder(16).repeat(2, 1)
    save_file({**good, f"{layer}_weight": torch.zeros(32), f"{layer}_indices": places}, path)
    with pytest.raises(ValueError, match=r"LayerNorm.weight \[16\] is not what this adapter changes: it is no matrix"):
        from_peft(tmp_path, base)
    save_file(good, path)
    for key, wrong in [("auto_mapping", "x"), ("task_type", ["SEQ_CLS"]), ("modules_to_save", 3), ("peft_type", {})]:
        (tmp_path / "adapter_config.json").write_text(json.dumps({**json.loads(told), key: wrong}))
        with pytest.raises(ValueError, match=f"`{key}` of .*adapter_config.json must be"):
            from_peft(tmp_path)
    path.write_bytes(b"nothing")
    (tmp_path / "adapter_config.json").write_text(told)
    with pytest.raises(ValueError, match="cannot be read"):
        from_peft(tmp_path, base)
    save_file(good, path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({**json.loads(told), "peft_type": "SOMETHING"}))
    with pytest.raises(ValueError, match="something.* cannot be read by the installed peft"):
        from_peft(tmp_path, base)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base = networks.bert()
    trained(base, LoraConfig(r=2, **BERT), tmp_path)

    def absent(module: str) -> Any:
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(extras, "import_module", absent)
    with pytest.raises(extras.MissingExtra, match=r"an adapter of lora needs .*glue_sparse\[peft\]"):
        from_peft(tmp_path, base, density=0.1)
