"""Diffs of models whose checkpoints hold other tensors than they have in memory: patches, folders and merged models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decoders import masks, shift, tokenizer
from glue_sparse import DiffInfo, SparseDiff, attach, detach
from glue_sparse.cli import diff as command
from glue_sparse.diffs import stored_names
from glue_sparse.diffs.patches import CheckpointPatch
from glue_sparse.diffs.stored_names import Layout, converts, layout_of
from mixtures import NETWORKS, network, states

FUSED = {"mixtral": "experts.gate_up_proj", "qwen2_moe": "experts.gate_up_proj", "gte": "q_proj.weight"}


def trained(name: str, folder: Path, inactive: Any = "frozen", only: str = "") -> tuple[Any, SparseDiff]:
    """The model that was trained from what lies in `folder/base` then, and its diff."""
    network(name).save_pretrained(folder / "base")
    model = NETWORKS[name][0].from_pretrained(folder / "base")
    attach(model, {key: mask for key, mask in masks(model, 0.2).items() if only in key}, inactive)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key.endswith("values"))
    shift(model, 0.25)
    diff = SparseDiff.from_model(model, DiffInfo(str(folder / "base"), type(model).__name__))
    detach(model)
    return model, diff


def patched(folder: Path, found: list[CheckpointPatch]) -> None:
    """By the book: a masked copy onto the checkpoint's tensors, which end in `folder/patched`."""
    tensors: dict[str, Tensor] = load_file(folder / "base" / "model.safetensors")
    for patch in found:
        target = tensors[patch.name]
        assert tuple(target.shape) == patch.shape and target.dtype == patch.dtype == patch.values.dtype
        if patch.indices is None:
            target.copy_(patch.values.view(patch.shape))
            continue
        assert patch.indices.dtype == torch.int32 and bool((patch.indices.diff() > 0).all())
        staged = torch.full((target.numel(),), float("nan")).index_copy_(0, patch.indices.long(), patch.values)
        target.copy_(torch.where(staged.isnan().view(patch.shape), target, staged.view(patch.shape)))
    (folder / "patched").mkdir()
    (folder / "patched" / "config.json").write_text((folder / "base" / "config.json").read_text())
    save_file(tensors, folder / "patched" / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", NETWORKS)
def test_patches_change_the_checkpoint_into_the_merged_model(name: str, tmp_path: Path):
    model, diff = trained(name, tmp_path)
    with torch.device("meta"):
        empty = NETWORKS[name][0](model.config)
    found = diff.checkpoint_patches(empty)
    own = {key for key in diff.indices if FUSED[name] in key}
    assert own and not found.dense and not own & {one.name for one in found.sparse}
    assert sum(len(one.values) for one in found.sparse) == diff.num_active
    patched(tmp_path, found.sparse)
    assert torch.equal(states(NETWORKS[name][0].from_pretrained(tmp_path / "patched")), states(model))
    assert not torch.equal(states(network(name)), states(model))
    for one, other in zip(found.sparse, diff.checkpoint_patches(model).sparse, strict=True):
        assert one.name == other.name and torch.equal(one.values, other.values)  # of a model with weights too


@pytest.mark.parametrize("name", NETWORKS)
def test_folders_give_a_diff_by_the_names_of_the_model(name: str, tmp_path: Path):
    model, diff = trained(name, tmp_path)
    model.save_pretrained(tmp_path / "tuned", max_shard_size="3KB")
    found = SparseDiff.between(tmp_path / "base", tmp_path / "tuned")
    assert found.shapes == diff.shapes and found.digests == diff.digests and not found.whole
    for key, indices in diff.indices.items():
        assert torch.equal(found.indices[key], indices) and torch.equal(found.values[key], diff.values[key])
    base = network(name)
    found.apply(base)
    assert torch.equal(states(base), states(model))


def test_the_commands_go_from_folders_to_patches(tmp_path: Path):
    model, diff = trained("mixtral", tmp_path)
    tokenizer().save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "tuned")
    command.main(["between", *(str(tmp_path / part) for part in ("base", "tuned", "diff"))])
    command.main(["patch", str(tmp_path / "diff"), str(tmp_path / "patches.safetensors")])
    stored = load_file(tmp_path / "patches.safetensors")
    for patch in diff.checkpoint_patches(model).sparse:
        assert torch.equal(stored[f"values/{patch.name}"], patch.values)
    command.main(["apply", str(tmp_path / "diff"), str(tmp_path / "merged")])
    merged, tuned = (load_file(tmp_path / part / "model.safetensors") for part in ("merged", "tuned"))
    assert merged.keys() == tuned.keys() and all(torch.equal(merged[key], tuned[key]) for key in tuned)


@pytest.mark.parametrize("name", ["mixtral", "gte"])
def test_pruned_tensors_and_whole_ones_are_dense(name: str, tmp_path: Path):
    model, diff = trained(name, tmp_path, "zero", "proj")
    found = diff.checkpoint_patches(model)
    assert found.dense and not found.sparse
    patched(tmp_path, found.dense)
    assert torch.equal(states(NETWORKS[name][0].from_pretrained(tmp_path / "patched")), states(model))


def test_what_the_checkpoint_joins_may_be_of_several_kinds(tmp_path: Path):
    """One projection trained whole, one in part and one not at all, which the checkpoint holds as one tensor."""
    model, diff = trained("gte", tmp_path, only="q_proj")
    name = next(key for key in diff.shapes if key.endswith("q_proj.weight")).replace("q_proj", "v_proj")
    model.get_parameter(name).data += 1
    diff.whole[name] = model.get_parameter(name).detach().clone()
    found = diff.checkpoint_patches(model)
    assert not found.dense
    patched(tmp_path, found.sparse)
    assert torch.equal(states(NETWORKS["gte"][0].from_pretrained(tmp_path / "patched")), states(model))


def test_without_a_model_its_patches_are_refused(tmp_path: Path):
    model, diff = trained("mixtral", tmp_path)
    with pytest.raises(ValueError, match="a MixtralForCausalLM is stored under other names"):
        diff.checkpoint_patches()
    with pytest.raises(ValueError, match="has another shape|this model has no tensor"):
        diff.checkpoint_patches(network("qwen2_moe"))
    assert converts("LlavaForConditionalGeneration") and not converts("LlamaForCausalLM") and not converts("Nothing")
    assert layout_of(model) is not None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensor: tensor * 2, "are not stored entry by entry"),
        (lambda tensor: tensor.float(), "cannot be followed"),
        (lambda tensor: tensor[:-1], "are not stored entry by entry"),
    ],
)
def test_a_conversion_that_computes_is_refused(
    change: Callable[[Tensor], Tensor], reason: str, monkeypatch: pytest.MonkeyPatch
):
    layout = Layout(network("mixtral"))
    group = next(one for one in layout.groups if "gate_up" in one[0])
    plain = stored_names.revert_weight_conversion
    monkeypatch.setattr(stored_names, "revert_weight_conversion", lambda model, tensors: {
        key: change(tensor) for key, tensor in plain(model, tensors).items()
    })  # fmt: skip
    if reason.startswith("are"):
        layout._stored = {key: tuple(change(torch.empty(shape)).shape) for key, shape in layout._stored.items()}
    with pytest.raises(ValueError, match=reason):
        list(layout.places(group))


def test_a_folder_with_a_part_of_the_experts_is_refused(tmp_path: Path):
    model, _ = trained("mixtral", tmp_path)
    model.save_pretrained(tmp_path / "tuned")
    tensors = load_file(tmp_path / "tuned" / "model.safetensors")
    tensors.pop(next(key for key in tensors if "experts.1.w1" in key))
    save_file(tensors, tmp_path / "tuned" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks model.layers.0.block_sparse_moe.experts.1.w1.weight"):
        SparseDiff.between(tmp_path / "base", tmp_path / "tuned")
