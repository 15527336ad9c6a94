"""Merged, negated, mixed and intersected diffs: against dense formulas and peft, bit for bit where that is promised."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.utils import merge_utils
from torch import Tensor, nn

from glue_sparse import DiffInfo, SparseDiff, attach, noise, select
from glue_sparse.core.active import active_tensors
from glue_sparse.core.options import MergeRule
from glue_sparse.core.parametrization import current_tensors, wholly_active
from glue_sparse.core.params import body_names, head_names
from glue_sparse.core.randomness import seeded
from glue_sparse.diffs.algebra import interpolate, intersect, merge, negate, with_head
from glue_sparse.diffs.between import StoredTensors
from glue_sparse.diffs.merge_rules import RULES, trimmed
from networks import bert

TASKS = ("mrpc", "rte", "sst2")


def trained(seed: int, num_labels: int = 2, budget: int = 2000, whole: str = "", **facts: Any) -> SparseDiff:
    """A diff of random entries with random changes; `whole` is a tensor of the base that trains as a whole."""
    model, random = bert(num_labels), torch.Generator().manual_seed(seed)
    names = [name for name in body_names(model, head_names(model)) if name != whole]
    attach(model, select(noise(model, tuple(names), seed=seed), budget))
    for _, entries in active_tensors(model):
        entries.values.data.add_(torch.randn(len(entries.values), generator=random))
    for name, parameter in wholly_active(model).items():
        if name == whole or name in head_names(model):
            parameter.data.add_(torch.randn(parameter.shape, generator=random))
    diff = SparseDiff.from_model(model, DiffInfo("tiny", type(model).__name__, task=TASKS[seed % 3], **facts))
    return replace(diff, info=replace(diff.info, num_labels=num_labels))


def base_tensors() -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in current_tensors(bert()).items()}


def full(diff: SparseDiff) -> dict[str, Tensor]:
    """All tensors of the body with a diff in them."""
    base, head = base_tensors(), head_names(bert())
    for name, values in diff.values.items():
        base[name].view(-1)[diff.positions(name)] = values
    return {name: diff.whole.get(name, tensor) for name, tensor in base.items() if name not in head}


def vectors(diffs: list[SparseDiff]) -> tuple[Tensor, Tensor]:
    """([n, all entries of the body] float64 changes, the base's entries): what papers call task vectors."""
    base, head = base_tensors(), head_names(bert())
    flat = torch.cat([tensor.flatten() for name, tensor in base.items() if name not in head]).double()
    return torch.stack([flatten(full(diff)).double() - flat for diff in diffs]), flat


def flatten(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in base_tensors() if name in tensors])


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def is_rounded_once(found: Tensor, wanted: Tensor) -> bool:
    """Whether float32 numbers are the nearest to float64 ones, but for what float64 itself rounds."""
    return bool(((found.double() - wanted).abs() <= wanted.abs() * 2**-24 + 1e-14).all())


@pytest.mark.parametrize("weights", [None, (1.0, 0.5, -0.25)])
@pytest.mark.parametrize("whole", ["", "bert.encoder.layer.1.output.LayerNorm.weight"])
def test_sum_and_mean_are_those_of_dense_changes(weights: tuple[float, ...] | None, whole: str):
    diffs = [trained(seed, whole=whole if seed < 2 else "") for seed in range(3)]
    told = torch.tensor(weights or (1.0,) * 3, dtype=torch.float64)
    changes, base = vectors(diffs)
    for how, wanted in (("sum", told @ changes), ("mean", told @ changes / told.sum())):
        merged = merge(diffs, weights, how, bert())  # pyright: ignore[reportArgumentType]
        assert is_rounded_once(flatten(full(merged)), base + wanted), how
        assert (whole in merged.whole) == bool(whole) and whole not in merged.shapes
        union = torch.stack([diff.own_masks()["bert.pooler.dense.weight"] for diff in diffs]).any(0)
        assert torch.equal(merged.own_masks()["bert.pooler.dense.weight"], union)


def ties(changes: Tensor, counts: list[int]) -> Tensor:
    """Yadav et al. (2023), algorithm 1, on changes of which the k largest count."""
    kept = torch.zeros_like(changes)
    for row, change, count in zip(kept, changes, counts, strict=True):
        places = change.abs().topk(count).indices
        row[places] = change[places]
    mass = [kept.clamp(min=0).sum(0), kept.clamp(max=0).sum(0).abs()]
    sign = torch.where(mass[0] >= mass[1], 1.0, -1.0)
    agrees = kept.sign() == sign
    return (kept * agrees).sum(0) / agrees.sum(0).clamp(min=1)


@pytest.mark.parametrize("density", [None, 0.2, 0.001])
def test_ties_is_the_published_rule(density: float | None):
    diffs = [trained(seed) for seed in range(3)]
    changes, base = vectors(diffs)
    counts = [int((density or 1) * diff.num_active) for diff in diffs]
    merged = merge(diffs, how="ties", base=bert(), density=density)
    assert is_rounded_once(flatten(full(merged)), base + ties(changes, counts))
    assert merged.num_active <= sum(counts)


def test_rules_are_those_of_peft(monkeypatch: pytest.MonkeyPatch):
    """peft takes the share of a whole tensor, so the tensors here are vectors of what is stored."""
    diffs = [trained(seed, budget=1500) for seed in range(3)]
    places = flatten({n: m.flatten() for n, m in merge(diffs, how="priority").own_masks().items()}).nonzero().squeeze(1)
    changes, base = vectors(diffs)
    found, weights = [*changes[:, places].float()], torch.tensor([0.5, 1.0, 2.0])
    told, dense = weights.tolist(), len(places) / 1500
    for density in (0.1, 0.4):
        asked: dict[str, Any] = {"weights": told, "base": bert(), "density": density}
        wanted = merge_utils.ties(found, weights, density / dense + 1e-9)
        assert close(merge(diffs, how="ties", **asked), base, places, wanted)
        pruned = [merge_utils.prune(one, density / dense + 1e-9, "magnitude") for one in found]
        kept = [trimmed({"": one[one != 0]}, density)[""] for one in found]
        assert [int(one.sum()) for one in kept] == [int((one != 0).sum()) for one in pruned]
    wanted = merge_utils.task_arithmetic(found, weights)
    assert close(merge(diffs, told, base=bert()), base, places, wanted)
    masks = iter([flatten(_drawn(diff, place)).double()[places].float() for place, diff in enumerate(diffs)])
    monkeypatch.setattr(torch, "bernoulli", lambda given: next(masks))
    wanted = merge_utils.dare_linear(found, weights, 0.25)
    assert close(merge(diffs, told, "dare", bert(), density=0.25, seed=3), base, places, wanted)


def close(merged: SparseDiff, base: Tensor, places: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(flatten(full(merged))[places].double() - base[places], wanted.double(), atol=1e-6)


def _drawn(diff: SparseDiff, place: int) -> dict[str, Tensor]:
    """What DARE keeps of a diff with density 0.25 and seed 3."""
    masks = diff.own_masks()
    for name, values in diff.values.items():
        drawn = torch.rand(len(values), generator=seeded(3, "dare", name, place)) < 0.25
        masks[name].view(-1)[diff.positions(name)] = drawn
    return {**masks}


def test_dare_keeps_its_share_by_the_seed_alone_and_keeps_the_mean():
    diffs = [trained(seed, budget=4000) for seed in range(2)]
    one, again, other = (merge(diffs, how="dare", base=bert(), density=0.3, seed=seed) for seed in (1, 1, 2))
    assert one.digest() == again.digest() != other.digest()
    assert merge(diffs[:1], how="dare", base=bert(), density=0.3).num_active == pytest.approx(1200, abs=90)
    name = "bert.encoder.layer.0.output.dense.weight"
    one, base = alone(diffs[0], name), base_tensors()
    change = one.values[name].double() - base[name].flatten()[one.positions(name)]
    total = torch.zeros(base[name].numel(), dtype=torch.float64)
    for seed in range(100):
        drawn = merge([one], how="dare", base=base, density=0.5, seed=seed)
        total[drawn.positions(name)] += drawn.values[name] - base[name].flatten()[drawn.positions(name)]
    off = total[one.positions(name)] / 100 - change
    assert float(off.square().sum() / change.square().sum()) == pytest.approx(1 / 100, rel=0.3)


def alone(diff: SparseDiff, name: str) -> SparseDiff:
    """What a diff holds of one tensor."""
    parts = {key: {name: getattr(diff, key)[name]} for key in ("indices", "values", "shapes", "digests")}
    return replace(diff, whole={}, **parts)


@pytest.mark.parametrize("how", [*RULES])
def test_one_diff_alone_keeps_its_bits(how: MergeRule):
    diff = trained(0)
    told: dict[str, Any] = {"density": 1.0} if RULES[how].takes_density else {}
    merged = with_head(merge([diff], how=how, base=None if how == "priority" else bert(), **told), diff)
    assert merged.digest() == diff.digest() and merged.shapes == diff.shapes and merged.digests == diff.digests
    assert replace(merged.info, method=diff.info.method, density=diff.info.density) == diff.info


def test_small_values_and_negative_zeros_keep_their_bits():
    """base + (value - base) would lose both."""
    diff = trained(0)
    for name, values in diff.values.items():
        diff.values[name] = torch.where(torch.arange(len(values)) % 2 == 0, -0.0, values * 1e-30)
    other = trained(1)
    assert merge([diff], base=bert()).digest() == replace(diff, whole={}).digest()
    both = merge([diff, other], base=bert())
    for name in diff.values:
        alone = ~torch.isin(diff.positions(name), other.positions(name))
        place = torch.searchsorted(both.positions(name), diff.positions(name)[alone])
        assert torch.equal(both.values[name][place].view(torch.int32), diff.values[name][alone].view(torch.int32))


def test_disjoint_diffs_are_all_there_and_their_order_does_not_matter():
    whole = trained(0, budget=3000)
    parts = []
    for i in range(3):
        indices = {name: places[i::3] for name, places in whole.indices.items()}
        values = {name: found[i::3] for name, found in whole.values.items()}
        parts.append(replace(whole, indices=indices, values=values))
    for how in ("sum", "priority", "ties"):
        merged = merge(parts, how=how, base=bert())
        assert merged.digest() == merge(parts[::-1], how=how, base=bert()).digest()
        assert same(merged.values, whole.values) and same(merged.indices, whole.indices), how


def test_precedence_is_that_of_the_order():
    one, other = trained(0), trained(1)
    first, second = merge([one, other], how="priority"), merge([other, one], how="priority")
    for name in one.values.keys() & other.values.keys():
        both = intersect([one, other]).positions(name)
        for merged, own in ((first, one), (second, other)):
            at = [torch.searchsorted(diff.positions(name), both) for diff in (merged, own)]
            assert torch.equal(merged.values[name][at[0]], own.values[name][at[1]])
    assert same(first.indices, second.indices) and not same(first.values, second.values)
    assert same(full(merge([one, other], how="priority", base=bert())), full(first))


def test_negation_turns_each_change_and_comes_back():
    diff = trained(0)
    turned = negate(diff, bert())
    changes, base = vectors([diff])
    assert is_rounded_once(flatten(full(turned)), base - changes[0])
    back = negate(turned, bert())
    assert same(turned.whole, diff.whole) and turned.info.task == diff.info.task
    for name, values in diff.values.items():
        torch.testing.assert_close(back.values[name], values, rtol=1e-6, atol=1e-6)
    for name, tensor in base_tensors().items():  # where the mirror image is a float32
        if name in diff.values:
            diff.values[name] = tensor.flatten()[diff.positions(name)] * 1.5
    assert negate(negate(diff, bert()), bert()).digest() == diff.digest()


def test_the_ends_of_the_way_between_two_are_the_two():
    one, other = trained(0), trained(1)
    assert interpolate(one, other, 0, bert()).digest() == one.digest()
    assert interpolate(one, other, 1, bert()).digest() == other.digest()
    changes, base = vectors([one, other])
    middle = interpolate(one, other, 0.25, bert())
    assert is_rounded_once(flatten(full(middle)), base + 0.75 * changes[0] + 0.25 * changes[1])
    head = (0.75 * one.whole["classifier.weight"].double() + 0.25 * other.whole["classifier.weight"].double()).float()
    assert torch.equal(middle.whole["classifier.weight"], head)
    assert not interpolate(one, trained(1, num_labels=3), 0.5, bert()).whole


def test_what_all_have_keeps_the_values_of_the_first():
    norm = "bert.encoder.layer.1.output.LayerNorm.weight"
    diffs = [trained(0, budget=4000), trained(1, budget=4000), trained(2, budget=4000, whole=norm)]
    found, masks = intersect(diffs), [diff.own_masks() for diff in diffs]
    changes = full(diffs[0])
    for name in found.shapes:
        both = masks[0][name] & masks[1][name] & (masks[2][name] if name != norm else True)
        assert torch.equal(found.own_masks()[name], both)
        assert torch.equal(found.values.get(name, torch.zeros(0)), changes[name][both]), name
    assert found.num_active and norm in found.values and {*found.whole} == {*head_names(bert())}
    last = intersect(diffs[::-1])
    assert norm in last.values and norm not in last.whole
    assert torch.equal(last.values[norm], diffs[2].whole[norm][last.own_masks()[norm]])


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
