"""SparseDiff: exact round trips, exact removal, and refusals that change nothing."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import BertForSequenceClassification

from glue_sparse import DiffInfo, SparseDiff, attach, detach, noise, select
from glue_sparse.core import tensor_files
from glue_sparse.core.active import Inactive, active_tensors
from glue_sparse.core.parametrization import current_tensors, wholly_active
from glue_sparse.core.params import body_names, head_names
from glue_sparse.diffs.identity import FILE_NAME, FORMAT
from networks import bert, cast, collate, examples


def trained(model: nn.Module, budget: int = 300, seed: int = 0, inactive: Inactive = "frozen") -> SparseDiff:
    """A diff whose values differ from the base; leaves `model` attached."""
    masks = select(noise(model, body_names(model, head_names(model)), seed=seed), budget)
    attach(model, masks, inactive)
    for _, entries in active_tensors(model):
        entries.values.data.add_(0.5)
    for parameter in wholly_active(model).values():
        parameter.data.add_(0.5)
    return SparseDiff.from_model(model, DiffInfo(base_model="tiny", method="random", task="rte", labels=("a", "b")))


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("inactive", ["frozen", "zero"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_load_apply_remove(tmp_path: Path, inactive, dtype):
    model, batch = cast(bert(), dtype).eval(), collate(examples(3))
    diff = trained(model, inactive=inactive)
    logits = model(**batch).logits
    diff.save_pretrained(tmp_path)
    loaded = SparseDiff.from_pretrained(tmp_path)
    assert loaded.info == diff.info and loaded.nbytes == diff.nbytes
    base = cast(bert(), dtype).eval()
    before = snapshot(base)
    with loaded.applied(base):
        assert torch.equal(base(**batch).logits, logits)
    assert same(base, before)
    loaded.apply(base)
    assert not same(base, before)
    loaded.remove(base)
    assert same(base, before)


def test_a_diff_changes_its_entries_and_no_others():
    model = bert()
    diff = trained(model, budget=250)
    detach(model)
    changed = sum(int((p != q).sum()) for p, q in zip(model.parameters(), bert().parameters(), strict=True))
    assert changed == 250 + 34 == diff.num_entries


def test_diffs_stack_and_come_off_latest_first():
    first, second, base = trained(bert(), seed=1), trained(bert(), seed=2), bert()
    before = snapshot(base)
    first.apply(base)
    after_first = snapshot(base)
    with pytest.raises(ValueError, match="differs from the base"):
        second.apply(base)
    second.apply(base, check=False)
    with pytest.raises(ValueError, match="not the one applied last"):
        first.remove(base)
    second.remove(base)
    assert same(base, after_first)
    first.remove(base)
    assert same(base, before)


def test_stock_model_after_apply_or_detach_gives_the_same_logits(tmp_path: Path):
    model, batch = bert().eval(), collate(examples(3))
    diff = trained(model)
    logits = model(**batch).logits
    detach(model)
    model.save_pretrained(tmp_path / "detached")
    base = bert()
    diff.apply(base)
    base.save_pretrained(tmp_path / "applied")
    for name in ("detached", "applied"):
        stock = BertForSequenceClassification.from_pretrained(tmp_path / name).eval()
        assert torch.equal(stock(**batch).logits, logits)


def test_size_is_that_of_the_entries(tmp_path: Path):
    diff = trained(bert(), budget=300)
    stored = tensor_files.read(diff.save_file(tmp_path), FORMAT)[0]
    assert diff.nbytes == sum(tensor.nbytes for tensor in stored.values())
    assert diff.nbytes < 300 * (4 + 2) + 34 * 4 + 32 * len(diff.indices)
    path = diff.save_pretrained(tmp_path)
    assert diff.nbytes < path.stat().st_size


@pytest.mark.parametrize("other", [bert(seed=1), bert(num_labels=3), bert(hidden_size=8), nn.Linear(2, 2)])
def test_a_wrong_base_is_refused_before_anything_changes(other: nn.Module):
    diff, before = trained(bert()), snapshot(other)
    with pytest.raises(ValueError, match="differs from the base|has shape|has no tensor"):
        diff.apply(other)
    assert same(other, before)


def test_masks_of_another_architecture_are_refused():
    with pytest.raises(ValueError, match="is not in the model"):
        trained(bert()).masks(bert(hidden_size=8))


def test_an_attached_model_is_refused():
    model = bert()
    diff = trained(model)
    with pytest.raises(ValueError, match="call detach"):
        diff.apply(model)


def test_damaged_and_foreign_files(tmp_path: Path):
    path = trained(bert()).save_pretrained(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        SparseDiff.from_pretrained(path)
    path.write_bytes(b"hello")
    with pytest.raises(ValueError, match="damaged"):
        SparseDiff.from_pretrained(tmp_path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="is not a glue_sparse diff"):
        SparseDiff.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no"):
        SparseDiff.from_pretrained(tmp_path.parent)
    with pytest.raises(ValueError, match="does not exist"):
        SparseDiff.from_pretrained("nothing")
    with pytest.raises(ValueError, match="neither a file, a folder nor"):
        SparseDiff.from_pretrained("nobody/nothing")


@pytest.mark.parametrize("indices", [[3, 1], [0, 99], [-1, 0], [0, 0], [0]])
def test_indices_that_do_not_fit_are_refused(tmp_path: Path, indices: list[int]):
    facts = {"info": asdict(DiffInfo()), "shapes": {"w": [2, 2]}, "digests": {"w": "0" * 64}}
    tensors = {"indices/w": torch.tensor(indices, dtype=torch.int32), "values/w": torch.zeros(2)}
    tensor_files.write(tmp_path / FILE_NAME, FORMAT, tensors, facts)
    with pytest.raises(ValueError, match="do not fit|is float32"):
        SparseDiff.from_pretrained(tmp_path)


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = trained(bert()).save_pretrained(tmp_path)
    before = path.read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glue_sparse.core.tensor_files.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        trained(bert(), seed=3).save_pretrained(tmp_path)
    assert path.read_bytes() == before and {p.name for p in tmp_path.iterdir()} == {FILE_NAME, "README.md"}


def test_buffers_travel_with_the_diff():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    attach(model, {"0.weight": torch.eye(3).bool()})
    model(torch.randn(8, 3))
    diff = SparseDiff.from_model(model)
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= diff.whole.keys()
    assert json.dumps(diff.shapes) == '{"0.weight": [3, 3]}'


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_between_finds_every_changed_bit(dtype: torch.dtype):
    model = cast(bert(), dtype)
    base = {name: tensor.detach().clone() for name, tensor in current_tensors(model).items()}
    names = list(body_names(model, head_names(model)))
    dense, few, sign = (model.get_parameter(name) for name in names[:3])
    base[names[2]].view(-1)[7] = 0.0
    with torch.no_grad():
        dense += 1
        few.view(-1)[3] += 1
        sign.view(-1)[7] = -0.0  # equal as a number, different as bits
    diff = SparseDiff.between(base, model, head_names(model), DiffInfo(base_model="tiny"))
    assert {names[0], *head_names(model)} <= diff.whole.keys()
    assert {name: indices.tolist() for name, indices in diff.indices.items()} == {names[1]: [3], names[2]: [7]}
    fresh = cast(bert(), dtype)
    fresh.load_state_dict(base, strict=False)
    diff.merge_into(fresh)
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    wanted, found = current_tensors(model), current_tensors(fresh)
    assert all(torch.equal(found[name].view(bits), wanted[name].view(bits)) for name in names)
    with pytest.raises(ValueError, match="differs from the base"):
        diff.merge_into(fresh)


def test_between_sees_the_values_of_an_attached_model():
    model, base = bert(), current_tensors(bert())
    diff = trained(model)
    between = SparseDiff.between(base, model, head_names(model))
    for name, values in between.values.items():
        assert torch.equal(between.indices[name], diff.indices[name]) and torch.equal(values, diff.values[name])
    merged = bert()
    between.merge_into(merged)
    detach(model)
    assert same(merged, snapshot(model))
