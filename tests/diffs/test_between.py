"""Diffs of two folders, and diffs as patches of a checkpoint, on decoders."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from decoders import causal, gpt2_causal, logits, masks, shift, tokenizer
from glue_sparse import DiffInfo, SparseDiff, attach, detach, load_base
from glue_sparse.cli import diff as command
from glue_sparse.diffs import patches
from rare import rarely

KINDS: dict[str, Any] = {
    "tied": causal, "untied": lambda: causal(False), "half": lambda: causal(False, torch.bfloat16), "gpt2": gpt2_causal,
}  # fmt: skip


def tuned(make: Any) -> nn.Module:
    model = make()
    attach(model, masks(model))
    shift(model)
    detach(model)
    return model


def apply_by_the_book(model: nn.Module, patch: patches.CheckpointPatch) -> None:
    """As engines do: a tensor of NaN that holds the new values, and a copy of what is not NaN; or a whole copy."""
    target = model.state_dict()[patch.name]
    assert tuple(target.shape) == patch.shape and target.dtype == patch.dtype == patch.values.dtype
    if patch.indices is None:
        target.copy_(patch.values.view(patch.shape))
        return
    assert len(patch.indices.unique()) == len(patch.indices) == len(patch.values)
    staged = torch.full((target.numel(),), float("nan"), dtype=patch.dtype)
    staged.index_copy_(0, patch.indices.long(), patch.values)
    target.copy_(torch.where(staged.isnan().view(patch.shape), target, staged.view(patch.shape)))


@pytest.mark.parametrize("kind", rarely(KINDS, ["tied", "half"]))
@pytest.mark.parametrize("shard", ["50GB", "20KB"])
def test_folders_differ_by_what_was_trained(kind: str, shard: str, tmp_path: Path):
    make = KINDS[kind]
    base, model = make(), tuned(make)
    base.save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "tuned", max_shard_size=shard)  # pyright: ignore
    assert len(list((tmp_path / "tuned").glob("*.safetensors"))) > (shard == "20KB")
    command.main(["between", *(str(tmp_path / name) for name in ("base", "tuned", "diff"))])
    found = SparseDiff.from_pretrained(tmp_path / "diff")
    assert not found.whole and 0.03 < found.num_active / sum(p.numel() for p in base.parameters()) < 0.07
    found.apply(base)
    assert torch.equal(logits(base), logits(model))


@pytest.mark.parametrize("kind", rarely(KINDS, ["tied", "half"]))
def test_patches_make_the_merged_model(kind: str):
    make = KINDS[kind]
    base, model = make(), make()
    attach(model, masks(model))
    shift(model)
    found = SparseDiff.from_model(model).checkpoint_patches()
    assert not found.dense and {one.name for one in found.sparse} <= set(dict(base.named_parameters()))
    for patch in found.sparse:
        apply_by_the_book(base, patch)
    assert torch.equal(logits(base), logits(model))


def test_patches_of_a_pruned_model_are_dense():
    base, model = causal(), causal()
    attach(model, {name: mask for name, mask in masks(model, 0.5).items() if "proj" in name}, "zero")
    shift(model)
    found = SparseDiff.from_model(model).checkpoint_patches()
    assert not found.sparse
    for patch in found.dense:
        apply_by_the_book(base, patch)
    assert torch.equal(logits(base), logits(model))


def test_what_is_not_finite_in_the_type_of_the_checkpoint_is_refused():
    model = causal(dtype=torch.float16)
    attach(model, masks(model))
    shift(model, 1e6)
    with pytest.raises(ValueError, match="not finite as torch.float16"):
        SparseDiff.from_model(model).checkpoint_patches()


def test_the_file_holds_the_patches(tmp_path: Path):
    model = causal()
    attach(model, masks(model))
    shift(model)
    diff = SparseDiff.from_model(model)
    diff.save_pretrained(tmp_path / "diff")
    command.main(["patch", str(tmp_path / "diff"), str(tmp_path / "patches.safetensors")])
    stored: dict[str, Tensor] = load_file(tmp_path / "patches.safetensors")
    for patch in diff.checkpoint_patches().sparse:
        assert torch.equal(stored[f"values/{patch.name}"], patch.values)
        assert patch.indices is not None and torch.equal(stored[f"indices/{patch.name}"], patch.indices)


@pytest.mark.parametrize(("change", "reason"), [
    (lambda model: model.to(torch.bfloat16), "save both in one type"),
    (lambda model: model.resize_token_embeddings(300), "save both in one type"),
])  # fmt: skip
def test_folders_of_different_models_are_refused(change, reason: str, tmp_path: Path):
    base, model = causal(), causal()
    change(model)
    base.save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "tuned")
    with pytest.raises(ValueError, match=reason):
        SparseDiff.between(tmp_path / "base", tmp_path / "tuned")
    with pytest.raises(ValueError, match="holds no weights"):
        SparseDiff.between(tmp_path / "base", tmp_path)


@pytest.mark.parametrize(("kind", "shard"), [("tied", "50GB"), ("untied", "20KB"), ("half", "20KB"), ("gpt2", "50GB")])
def test_a_decoder_and_its_diff_become_a_folder_like_the_base(kind: str, shard: str, tmp_path: Path):
    base, model = KINDS[kind](), tuned(KINDS[kind])
    base.save_pretrained(tmp_path / "base", max_shard_size=shard)
    tokenizer().save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "tuned")  # pyright: ignore
    SparseDiff.between(tmp_path / "base", tmp_path / "tuned").save_pretrained(tmp_path / "diff")
    command.main(["apply", str(tmp_path / "diff"), str(tmp_path / "merged")])
    found = type(base).from_pretrained(tmp_path / "merged")
    assert torch.equal(logits(found), logits(model)) and found.dtype == base.dtype
    sizes = [len(list((tmp_path / folder).glob("model*.safetensors"))) for folder in ("base", "merged")]
    assert (sizes[0] > 1) == (sizes[1] > 1) == (shard == "20KB")


def test_a_head_of_another_class_has_its_outputs(tiny_bert: str):
    info = DiffInfo(tiny_bert, "BertForTokenClassification", num_labels=5)
    assert load_base(info).get_parameter("classifier.weight").shape[0] == 5
