"""Merged, negated, mixed and intersected diffs: against dense formulas and peft, bit for bit where promised."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft.utils import merge_utils
from torch import Tensor

from glue_sparse import SparseDiff
from glue_sparse.core.options import MergeRule
from glue_sparse.core.params import head_names
from glue_sparse.core.randomness import seeded
from glue_sparse.diffs.algebra import interpolate, intersect, merge, negate, with_head
from glue_sparse.diffs.merge_rules import RULES, trimmed
from networks import bert
from random_diffs import base_tensors, flatten, full, same, trained, vectors


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
