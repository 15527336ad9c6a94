"""Similarity of masks: hand-worked numbers, chance, layers, and what a user types."""

from pathlib import Path

import pytest
import torch

from glue_sparse import attach
from glue_sparse.analysis.similarity import compare, compare_layers, read
from glue_sparse.cli import masks as masks_script
from glue_sparse.core import mask_file, masks
from glue_sparse.core.masks import select
from glue_sparse.core.randomness import seeded
from glue_sparse.diffs.diff import SparseDiff
from networks import bert


def bits(text: str) -> torch.Tensor:
    return torch.tensor([letter == "1" for letter in text])


def random_mask(density: float, seed: int, entries: int = 40_000) -> masks.Masks:
    return select({"w": torch.rand(entries, generator=seeded(seed, "similarity"))}, round(density * entries))


def test_hand_worked_numbers():
    found = compare({"a": bits("1110"), "b": bits("1100")}, {"a": bits("1101"), "b": bits("1010")})
    assert (found.entries, found.first, found.second, found.both) == (8, 5, 5, 3)
    assert found.cosine == 0.6
    assert found.chance == 0.625  # the density, as both keep 5 of 8
    assert found.chance_per_tensor == pytest.approx((9 / 4 + 4 / 4) / 5)
    assert found.corrected == pytest.approx((0.6 - 0.625) / 0.375)
    assert found.pruned_overlap == pytest.approx(1 / 3)  # of 3 pruned by each, one by both
    assert found.pruned_jaccard == pytest.approx(1 / 5)
    assert not found.nested


@pytest.mark.parametrize("sparsity", [0.1, 0.2, 0.3, 0.4])
def test_the_chance_level_of_the_cosine_is_the_density(sparsity: float):
    found = compare(random_mask(1 - sparsity, 0), random_mask(1 - sparsity, 1))
    assert found.chance == pytest.approx(1 - sparsity)
    assert found.cosine == pytest.approx(1 - sparsity, abs=0.005)
    assert found.corrected == pytest.approx(0, abs=0.02)
    assert found.pruned_overlap == pytest.approx(sparsity, abs=0.02)


def test_a_cosine_of_96_percent_can_mean_that_two_thirds_of_the_pruned_weights_agree():
    one, other = bits("0" * 100 + "1" * 900), bits("0" * 64 + "1" * 36 + "0" * 36 + "1" * 864)
    found = compare({"w": one}, {"w": other})
    assert found.cosine == pytest.approx(0.96) and found.pruned_overlap == 0.64


def test_equal_nested_and_full_masks():
    mask = random_mask(0.7, 0)
    same = compare(mask, mask)
    assert same.cosine == pytest.approx(1) and same.corrected == pytest.approx(1) and same.nested
    assert same.pruned_jaccard == 1
    sparser = {"w": mask["w"] & random_mask(0.5, 3)["w"]}
    nested = compare(mask, sparser)
    assert nested.nested and nested.pruned_overlap == 1 and nested.cosine and nested.cosine < 1
    none = compare({"w": bits("00")}, {"w": bits("11")})
    assert none.cosine is None and none.corrected is None
    full = compare({"w": bits("11")}, {"w": bits("11")})
    assert full.corrected is None and full.pruned_overlap is None and full.pruned_jaccard is None


def test_layers_add_up_and_different_masks_are_refused():
    one = {"x.0.w": bits("10"), "x.0.v": bits("11"), "x.1.w": bits("01")}
    other = {"x.0.w": bits("11"), "x.0.v": bits("10"), "x.1.w": bits("01")}
    layers = compare_layers(one, other)
    assert list(layers) == ["x.0", "x.1"]
    assert sum(found.both for found in layers.values()) == compare(one, other).both == 3
    with pytest.raises(ValueError, match="only one of them has x.1.w"):
        compare(one, {name: mask for name, mask in other.items() if name != "x.1.w"})
    with pytest.raises(ValueError, match=r"x.0.w is \(2,\) in one mask and \(3,\) in the other"):
        compare(one, {**other, "x.0.w": bits("110")})


def test_masks_of_runs_files_and_folders(tmp_path: Path):
    model = bert()
    kept = select({"bert.pooler.dense.weight": torch.rand(16, 16)}, 100)
    attach(model, kept, "zero")
    SparseDiff.from_model(model).save_pretrained(tmp_path / "run")
    mask_file.save(kept, tmp_path / "pruned" / "masks.safetensors", "zero")
    for source in (tmp_path / "run", tmp_path / "pruned", tmp_path / "pruned" / "masks.safetensors"):
        found, inactive = read(source)
        assert masks.digest(found) == masks.digest(kept) and inactive == "zero"
    with pytest.raises(ValueError, match="missing"):
        read(tmp_path / "nothing")
    attach(dense := bert(), {})
    SparseDiff.from_model(dense).save_pretrained(tmp_path / "dense")
    with pytest.raises(ValueError, match="has no masks: all of its weights train"):
        read(tmp_path / "dense")


def call(*words: str) -> None:
    assert masks_script.main(words) == 0


def test_make_show_and_compare(tmp_path: Path, tiny_bert: str, capsys: pytest.CaptureFixture[str]):
    low, high, noise = (str(tmp_path / f"{name}.safetensors") for name in ("low", "high", "noise"))
    call("make", tiny_bert, low, "--sparsity", "0.2")
    printed = capsys.readouterr().out
    assert "3,277 of 16,384 entries of 12 tensors are pruned (20.001%)" in printed and "% of the model" in printed
    assert "attention.self.query.weight" in printed and "bert.encoder.layer.1" in printed
    call("make", tiny_bert, high, "--sparsity", "0.4")
    call("make", tiny_bert, noise, "--sparsity", "0.4", "--criterion", "random")
    call("show", low)
    capsys.readouterr()
    folder = str(tmp_path / "results")
    call("compare", low, high, noise, "--results_dir", folder, "--by_layer")
    lines = capsys.readouterr().out.splitlines()
    pair = next(line for line in lines if "low.safetensors - high.safetensors " in line)
    assert pair.rstrip(" |").endswith("yes")  # magnitude masks are nested
    assert not next(line for line in lines if "high.safetensors - noise" in line).rstrip(" |").endswith("yes")
    assert (tmp_path / "results" / "similarity.png").stat().st_size > 1000
    remake = ["make", tiny_bert, low]
    wrong = [[*remake, "--sparsity", "1"], [*remake, "--pattern", "2-4"], [*remake, "--pattern", "1:3"]]
    for bad in (["compare", low], ["compare", low, str(tmp_path)], *wrong):
        with pytest.raises(SystemExit) as error:
            call(*bad)
        assert error.value.code in (1, 2) and capsys.readouterr().err.count("error: ") == 1
