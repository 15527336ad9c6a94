"""Diff pruning, stages 2 and 3: exact counts, the right entries, and every other weight as it was."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from glue_sparse import FixedMask, SparseDiff
from glue_sparse.analysis.density import density_by_layer
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.cli import prune_diff
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.core.params import body_names, head_names
from glue_sparse.diffs.prune import prune
from glue_sparse.diffs.storage import emptied
from glue_sparse.methods.gates.diff_gates import DiffGates
from glue_sparse.methods.registry import build_method
from networks import bert
from training import trainer

ROOT = Path(__file__).parents[2]
HEAD = ("classifier.weight", "classifier.bias")
NUM_ENTRIES = sum(p.numel() for p in bert().parameters())


def trained(folder: Path, method: Any) -> SparseDiff:
    run = trainer(folder, method=method, max_steps=6, max_grad_norm=0.0)
    run.info = replace(run.info, base_model="tiny", method=type(method).__name__)
    run.train()
    return run.sparse_diff()


def changes(diff: SparseDiff) -> dict[str, torch.Tensor]:
    """|w - w0| of the body, dense, in float32."""
    base, model = bert(), bert()
    diff.merge_into(model)
    pairs = {name: (model.get_parameter(name), base.get_parameter(name)) for name in body_names(base, HEAD)}
    return {name: (new - old).abs().detach() for name, (new, old) in pairs.items()}


@pytest.mark.parametrize("method", [DiffGates(alpha_init=1.0), FixedMask(masks={})], ids=["gates", "dense"])
def test_the_largest_changes_are_kept_exactly_to_budget(tmp_path: Path, method: Any):
    diff = trained(tmp_path, method)
    found = prune(diff, bert(), head_names(bert()), density=0.05)
    budget = int(0.05 * NUM_ENTRIES) - 34
    assert found.diff.num_active == found.budget == budget and found.diff.num_entries == int(0.05 * NUM_ENTRIES)
    dense = torch.cat([change.flatten() for change in changes(diff).values()])
    kept = torch.cat([change.flatten() for change in changes(found.diff).values()])
    assert int((kept > 0).sum()) == budget
    assert sorted(kept[kept > 0].tolist()) == sorted(dense.topk(budget).values.tolist())
    assert found.smallest == pytest.approx(float(dense.topk(budget).values[-1]))
    assert torch.equal(found.diff.whole["classifier.weight"], diff.whole["classifier.weight"])
    assert found.diff.shapes.keys() == set(body_names(bert(), HEAD)) and found.diff.info.density == 0.05


def test_kept_entries_may_take_other_values(tmp_path: Path):
    """As released: what stage 3 starts from is w0 + d, while w0 + z d decides what is kept."""
    diff = trained(tmp_path, DiffGates(alpha_init=1.0))
    raw = {name: torch.full_like(bert().get_parameter(name), 7.0) for name in body_names(bert(), HEAD)}
    plain, other = (prune(diff, bert(), HEAD, density=0.05, values=values).diff for values in (None, raw))
    assert all(torch.equal(plain.indices[name], other.indices[name]) for name in plain.indices)
    assert all(bool((values == 7.0).all()) for values in other.values.values())


def test_pruning_at_a_threshold(tmp_path: Path):
    diff = trained(tmp_path, FixedMask(masks={}))
    dense = torch.cat([change.flatten() for change in changes(diff).values()])
    threshold = float(dense.median())
    found = prune(diff, bert(), HEAD, threshold=threshold)
    assert found.diff.num_active == found.budget == int((dense > threshold).sum())
    assert found.diff.info.density == pytest.approx((found.budget + 34) / NUM_ENTRIES)


def test_entries_that_never_moved_are_not_made_up(tmp_path: Path):
    """Tokens 0 and up that no example holds have no change, and are not counted as kept."""
    diff = trained(tmp_path, FixedMask(masks={}))
    moved = sum(int((change > 0).sum()) for change in changes(diff).values())
    found = prune(diff, bert(), HEAD, density=1.0)
    assert found.diff.num_active == moved < found.budget


def test_a_key_bias_is_counted_among_empty_tensors(tmp_path: Path):
    found = prune(trained(tmp_path, FixedMask(masks={})), bert(), HEAD, density=0.02)
    empty, keys = emptied(found.diff)
    assert keys == 2 and empty >= 2
    table = density_by_layer(found.diff)
    assert sum(active for active, _ in table.values()) == found.diff.num_active
    assert sum(entries for _, entries in table.values()) == NUM_ENTRIES - 34


def test_another_base_and_contradictions_are_refused(tmp_path: Path):
    diff = trained(tmp_path, DiffGates())
    with pytest.raises(ValueError, match="differs from the base of this diff, tiny"):
        prune(diff, bert(seed=1), HEAD, density=0.05)
    dense = trained(tmp_path, FixedMask(masks={}))  # stores no digest per tensor
    with pytest.raises(ValueError, match="differs from the base of the diff, tiny"):
        prune(dense, bert(seed=1), HEAD, density=0.05)
    with pytest.raises(ValueError, match="either a density or a threshold"):
        prune(diff, bert(), HEAD)
    with pytest.raises(ValueError, match="head alone"):
        prune(diff, bert(), HEAD, density=1e-4)


@pytest.mark.parametrize("start_from", ["values", "zero"])
def test_stage_three_moves_kept_entries_and_nothing_else(tmp_path: Path, start_from: Any):
    pruned = prune(trained(tmp_path / "1", DiffGates()), bert(), HEAD, density=0.05).diff
    pruned.save_pretrained(tmp_path / "2")
    arguments = MethodArguments(method="fixed_mask", start_diff=str(tmp_path / "2"), start_from=start_from)
    run = trainer(tmp_path / "3", method=build_method(arguments, seed=0), max_steps=3)
    run.choose()
    base = current_tensors(bert())
    start = {name: tensor.clone() for name, tensor in current_tensors(run.network).items()}
    expected = bert()
    pruned.merge_into(expected)
    for name, tensor in current_tensors(expected).items():
        wanted = tensor if start_from == "values" or name in HEAD else base[name]
        assert torch.equal(start[name], wanted), name
    run.train()
    diff = run.sparse_diff()
    for name, tensor in current_tensors(run.network).items():
        if name not in HEAD:
            mask = torch.zeros_like(tensor, dtype=torch.bool)
            mask.view(-1)[pruned.indices.get(name, torch.zeros(0)).long()] = True
            assert torch.equal(tensor[~mask], base[name][~mask]), name
            assert not mask.any() or bool((tensor[mask] != start[name][mask]).any()), name
    assert all(torch.equal(diff.indices[name], pruned.indices[name]) for name in pruned.indices)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The sentence with which `glue-sparse diff prune` ends."""
    with pytest.raises(SystemExit) as ended:
        prune_diff.main([*map(str, words)])
    assert ended.value.code == 1
    return capsys.readouterr().err


def test_a_wrong_order_of_stages_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = trainer(tmp_path / "1", method=DiffGates(), max_steps=2, save_strategy="steps", save_steps=1)
    run.info = replace(run.info, base_model="tiny", method="diff_gates")
    run.train()
    early = refused(capsys, tmp_path / "1", tmp_path / "2", "--density", 0.05)
    assert "holds an unfinished run: finish it first" in early
    run.sparse_diff().save_pretrained(tmp_path / "1")
    assert "whose diff would be lost" in refused(capsys, tmp_path / "1", tmp_path / "1", "--target_sparsity", 0.05)
    for flag in ("start_diff", "mask_file"):
        arguments = MethodArguments(method="fixed_mask")
        setattr(arguments, flag, str(tmp_path / "1"))
        with pytest.raises(ValueError, match="holds the whole result of diff_gates, which is yet to be pruned"):
            build_method(arguments, seed=0)
    with pytest.raises(ValueError, match="goes with --method fixed_mask"):
        build_method(MethodArguments(method="fish", start_diff="x"), seed=0)
    with pytest.raises(ValueError, match="needs --mask_file .* or --start_diff"):
        build_method(MethodArguments(method="fixed_mask", start_diff="x", mask_file="y"), seed=0)


def test_flags_that_do_not_go_with_a_start_are_refused(tmp_path: Path):
    pruned = prune(trained(tmp_path / "1", DiffGates()), bert(), HEAD, density=0.05).diff
    pruned.save_pretrained(tmp_path / "2")
    path = str(tmp_path / "2")
    with pytest.raises(ValueError, match="--density 0.01 does not go with --start_diff, whose is 0.05"):
        build_method(MethodArguments(method="fixed_mask", start_diff=path, density=0.01), seed=0)
    with pytest.raises(ValueError, match="--start_from zero goes with --start_diff"):
        build_method(MethodArguments(method="fixed_mask", mask_file=path, start_from="zero"), seed=0)
