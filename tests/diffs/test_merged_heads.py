"""Heads, bases and buffers of merged diffs, and what does not belong together."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from glue_sparse import SparseDiff, attach
from glue_sparse.core.active import active_tensors
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.core.params import head_names
from glue_sparse.diffs.algebra import merge, with_head
from glue_sparse.diffs.between import StoredTensors
from networks import bert
from random_diffs import base_tensors, full, same, trained


def test_a_merged_diff_serves_each_task_with_its_own_head():
    diffs = [trained(0, labels=("no", "yes")), trained(1, num_labels=3, labels=("a", "b", "c"))]
    merged = merge(diffs, how="mean", base=bert())
    assert not merged.whole and merged.info.task == "mrpc + rte" and merged.info.labels == ()
    assert merged.info.method == "merged by mean" and merged.info.num_labels is None
    for diff, count in zip(diffs, (2, 3), strict=True):
        own, model = with_head(merged, diff), bert(count)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        assert (own.info.task, own.info.labels, own.info.num_labels) == (diff.info.task, diff.info.labels, count)
        with own.applied(model):
            now = current_tensors(model)
            assert all(torch.equal(now[name], diff.whole[name]) for name in head_names(model))
            assert same({name: now[name] for name in full(merged)}, full(merged))
        assert same(before, dict(model.state_dict()))


def test_a_head_brings_no_tensor_of_the_base_along():
    norm = "bert.encoder.layer.1.output.LayerNorm.weight"
    diffs = [trained(0, whole=norm), trained(1)]
    merged = merge(diffs, how="mean", base=bert())
    own = with_head(merged, diffs[0])
    assert torch.equal(own.whole[norm], merged.whole[norm]) and not torch.equal(own.whole[norm], diffs[0].whole[norm])
    assert {*own.whole} == {norm, *head_names(bert())}


def test_heads_of_one_task_are_averaged_where_that_is_asked_for():
    diffs = [trained(0), trained(3)]
    soup = merge(diffs, (1.0, 3.0), "mean", bert(), average_heads=True)
    head = [diff.whole["classifier.bias"].double() for diff in diffs]
    assert torch.equal(soup.whole["classifier.bias"], (0.25 * head[0] + 0.75 * head[1]).float())
    assert soup.info.task == "mrpc"
    with pytest.raises(ValueError, match="is not in all diffs in one shape"):
        merge([trained(0), trained(1, num_labels=3)], how="mean", base=bert(), average_heads=True)


def test_without_a_base_a_tensor_that_no_diff_masks_is_each_task_s_own():
    norm = "bert.encoder.layer.1.output.LayerNorm.weight"
    both = merge([trained(0, whole=norm), trained(1, whole=norm)], how="priority")
    assert norm not in both.whole and with_head(both, trained(1, whole=norm)).whole.keys() > {norm}
    one, other = trained(0, whole=norm), trained(1, budget=5000)
    mixed = merge([other, one], how="priority").whole[norm]
    wanted = one.whole[norm].clone()
    wanted[other.positions(norm)] = other.values[norm]
    assert len(other.values[norm]) and torch.equal(mixed, wanted) and not torch.equal(mixed, one.whole[norm])


def test_bases_come_as_models_tensors_and_folders(tmp_path: Path):
    diffs, model = [trained(0), trained(1)], bert()
    model.save_pretrained(tmp_path)
    assert same(dict(StoredTensors(tmp_path)), dict(model.state_dict()))
    head = head_names(model)
    found = [merge(diffs, base=base, head=head) for base in (model, base_tensors(), tmp_path, str(tmp_path))]
    assert len({one.digest() for one in found}) == 1 and not found[2].whole


def test_half_precision_and_buffers():
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).to(torch.bfloat16)

    def diff(seed: int) -> SparseDiff:
        model = network()
        attach(model, {"0.weight": torch.rand(8, 8, generator=torch.Generator().manual_seed(seed)) < 0.5})
        model[1](torch.randn(16, 8, generator=torch.Generator().manual_seed(seed)).bfloat16())  # pyright: ignore
        next(iter(active_tensors(model)))[1].values.data.add_(0.5 + seed)
        return SparseDiff.from_model(model)

    diffs = [diff(0), diff(1)]
    merged, base = merge(diffs, how="mean", base=network()), current_tensors(network())
    mean = (diffs[0].whole["1.running_mean"].double() + diffs[1].whole["1.running_mean"].double()) / 2
    assert torch.equal(merged.whole["1.running_mean"], mean.bfloat16()) and mean.any()
    assert torch.equal(merged.whole["1.num_batches_tracked"], diffs[0].whole["1.num_batches_tracked"])
    assert merged.whole["2.weight"].dtype == torch.bfloat16 and torch.equal(merged.whole["2.weight"], base["2.weight"])
    merged.apply(model := network())
    merged.remove(model)
    assert same(dict(model.state_dict()), dict(network().state_dict()))


def test_a_diff_of_weight_zero_counts_as_not_given():
    diffs = [trained(seed) for seed in range(3)]
    for how in ("sum", "mean", "ties"):
        merged = merge(diffs, (1, 0, 2), how, bert())
        assert merged.digest() == merge([diffs[0], diffs[2]], (1, 2), how, bert()).digest()
    assert merge(diffs, (0, 0, 0), base=bert()).num_entries == 0


def other_base() -> SparseDiff:
    model = bert(seed=1)
    attach(model, {"bert.pooler.dense.weight": torch.ones(16, 16, dtype=torch.bool)})
    return SparseDiff.from_model(model)


def wider() -> SparseDiff:
    model = bert(intermediate_size=48)
    attach(model, {"bert.encoder.layer.0.output.dense.weight": torch.ones(16, 48, dtype=torch.bool)})
    return SparseDiff.from_model(model)


def attached() -> nn.Module:
    model = bert()
    attach(model, {"bert.pooler.dense.weight": torch.ones(16, 16, dtype=torch.bool)})
    return model


def pruned() -> SparseDiff:
    model = bert()
    attach(model, {"bert.pooler.dense.weight": torch.ones(16, 16, dtype=torch.bool)}, "zero")
    return SparseDiff.from_model(model)


def sparse_head() -> SparseDiff:
    model = bert()
    attach(model, {"classifier.weight": torch.ones(2, 16, dtype=torch.bool)})
    return SparseDiff.from_model(model)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: merge([]), "there is no diff: give at least one"),
        (lambda: merge([trained(0)], how="tie", base=bert()), "unknown `how` 'tie'; did you mean ties?"),  # pyright: ignore
        (lambda: merge([trained(0)]), "`how` sum is arithmetic on changes: give `base`"),
        (lambda: merge([trained(0)], base=bert(seed=1)), "differs from the base of these diffs, tiny"),
        (lambda: merge([trained(0)], base={}), "the base has no tensor .*; the diffs belong to tiny"),
        (lambda: merge([trained(0)], base=attached()), "active entries of its own: call detach"),
        (lambda: merge([trained(0), other_base()], how="priority"), "pooler.dense.weight has other weights"),
        (lambda: merge([trained(0), wider()], how="priority"), "has another shape in the base of diff 2"),
        (lambda: merge([trained(0), pruned()], how="priority"), "diff 2 is of a pruned model"),
        (lambda: merge([trained(0)], (1, 2), base=bert()), "2 `weights` for 1 diffs"),
        (lambda: merge([trained(0)], (float("nan"),), base=bert()), "`weights` must be finite"),
        (lambda: merge([trained(0)], (0,), "mean", bert()), "must not add up to 0"),
        (lambda: merge([trained(0)], (-1,), "ties", bert()), "`negate` the diff"),
        (lambda: merge([trained(0)], (1,), "priority"), "takes no `weights`"),
        (lambda: merge([trained(0)], how="dare", base=bert()), "dare needs `density`"),
        (lambda: merge([trained(0)], how="dare", base=bert(), density=0.0), r"`density` must be in \(0, 1\], got 0"),
        (lambda: merge([trained(0)], base=bert(), density=0.5), "`density` has no effect with `how` sum"),
        (lambda: merge([trained(0), trained(1, num_labels=3)], base=base_tensors()), "name it in `head`"),
        (lambda: with_head(merge([trained(0)], how="priority"), other_base()), "all must be of one base"),
        (lambda: merge([trained(0), sparse_head()], base=bert()), "classifier.weight is a tensor of a head"),
    ],
)
def test_what_does_not_belong_together_is_refused(call: Callable[[], SparseDiff], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_a_merged_diff_is_saved_with_its_card_and_read_again(tmp_path: Path):
    merged = merge([trained(0), trained(1)], (1.0, 0.5), "ties", bert(), density=0.5)
    merged.save_pretrained(tmp_path)
    again = SparseDiff.from_pretrained(tmp_path)
    assert again.info == merged.info and again.digest() == merged.digest()
    card = (tmp_path / "README.md").read_text()
    assert "`mrpc + rte`" in card and "merged by ties" in card
