"""What is dropped and grown: by hand, and against a slow reference in plain Python on 5 x 5 matrices."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from glue_sparse.methods.moving.rules import (
    PRESETS,
    Connections,
    Rule,
    gradient_magnitude,
    grown,
    kept,
    mean_momentum,
    momentum_magnitude,
    num_dropped,
    random_score,
    weight_magnitude,
)


def connections(weight: Any, mask: Any, gradient: Any = None, momentum: Any = None, **changes: Any) -> Connections:
    """A tensor named `layer.weight` at step 100 of a run with seed 0."""
    tensors = [None if t is None else torch.as_tensor(t, dtype=torch.float32) for t in (weight, gradient, momentum)]
    weight, gradient, momentum = tensors
    assert weight is not None
    param = Connections("layer.weight", weight, torch.as_tensor(mask).bool(), 100, 0, gradient, momentum)
    return replace(param, **changes)


def places(mask: Tensor) -> list[int]:
    return mask.flatten().nonzero().squeeze(1).tolist()


def best(scores: list[float], candidates: list[int], count: int) -> list[int]:
    """The slow reference: look for the largest score again and again; of equal ones the first found stays."""
    chosen: list[int] = []
    for _ in range(count):
        winner = None
        for place in candidates:
            if place not in chosen and (winner is None or scores[place] > scores[winner]):
                winner = place
        assert winner is not None
        chosen.append(winner)
    return sorted(chosen)


@pytest.mark.parametrize("trial", range(100))
def test_an_update_equals_a_slow_reference(trial: int):
    generator = torch.Generator().manual_seed(trial)
    weight, gradient = torch.randn(2, 5, 5, generator=generator)
    if trial % 2:  # many ties, many of them at zero
        weight, gradient = weight.round(), gradient.round()
    mask = torch.rand(5, 5, generator=generator) < 0.4
    mask[2, 3] = True
    param = connections(weight * mask, mask, gradient)
    num_stays = int(torch.randint(0, int(mask.sum()) + 1, (1,), generator=generator))
    num_grown = int(torch.randint(0, 25 - num_stays + 1, (1,), generator=generator))

    stays = kept(param, Rule(None, weight_magnitude), num_stays)
    flat = [abs(value) for value in (weight * mask).flatten().tolist()]
    assert places(stays) == best(flat, places(mask), num_stays)

    new = grown(param, Rule(gradient_magnitude), stays, num_grown)
    others = [place for place in range(25) if place not in places(stays)]
    assert places(new) == best([abs(value) for value in gradient.flatten().tolist()], others, num_grown)
    assert not (stays & new).any() and int((stays | new).sum()) == num_stays + num_grown


def test_one_rigl_update_by_hand():
    weight = [[0.5, 0.0, -2.0], [0.0, 0.1, 0.0], [-0.3, 0.0, 0.0]]
    mask = [[1, 0, 1], [0, 1, 0], [1, 0, 0]]
    gradient = [[9.0, 0.2, 8.0], [-5.0, 0.0, 1.0], [0.0, -0.1, 4.0]]
    param = connections(weight, mask, gradient)
    assert num_dropped(4, 0.5) == 2
    stays = kept(param, Rule(None, weight_magnitude), 2)
    assert places(stays) == [0, 2]  # |0.5| and |-2|; 0.1 and -0.3 are dropped
    # the large gradients of what stays do not count, and -5 is larger than 4: a signed score would take 4 and 1
    assert places(grown(param, Rule(gradient_magnitude), stays, 2)) == [3, 8]


def test_growth_goes_by_the_size_of_a_gradient_and_not_by_its_sign():
    gradient = -torch.arange(1.0, 26.0).view(5, 5)
    nothing = torch.zeros(5, 5, dtype=torch.bool)
    param = connections(torch.zeros(5, 5), nothing, gradient, -gradient)
    assert places(grown(param, Rule(gradient_magnitude), nothing, 3)) == [22, 23, 24]
    param = connections(torch.zeros(5, 5), nothing, -gradient, gradient)
    assert places(grown(param, Rule(momentum_magnitude), nothing, 3)) == [22, 23, 24]


def test_active_entries_of_zero_are_kept_and_inactive_ones_never():
    # all weights are 0, and the inactive entries come first
    mask = torch.zeros(5, 5).bool()
    mask[3:] = True
    assert places(kept(connections(torch.zeros(5, 5), mask), Rule(None, weight_magnitude), 4)) == [15, 16, 17, 18]
    assert torch.equal(kept(connections(torch.zeros(5, 5), mask), Rule(None, weight_magnitude), 10), mask)
    # inactive entries have no chance even where a score puts them first
    first = kept(connections(torch.zeros(5, 5), mask), Rule(None, lambda param: (~param.mask).float()), 2)
    assert places(first) == [15, 16]


def test_ties_go_to_the_earlier_entry():
    mask = torch.tensor([[0, 1, 1], [1, 0, 1]]).bool()
    param = connections([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0]], mask, [[2.0, 0.0, -2.0], [2.0, -2.0, 2.0]])
    stays = kept(param, Rule(None, weight_magnitude), 2)
    assert places(stays) == [1, 2]
    assert places(grown(param, Rule(gradient_magnitude), stays, 2)) == [0, 3]


def test_what_has_just_been_dropped_may_grow_again():
    param = connections([3.0, 2.0, 1.0, 0.0], [1, 1, 1, 0], [0.0, 0.0, 5.0, 1.0])
    stays = kept(param, Rule(None, weight_magnitude), 2)
    assert places(stays) == [0, 1]
    assert places(grown(param, Rule(gradient_magnitude), stays, 1)) == [2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite(bad: float):
    param = connections([1.0, bad, 0.0, 0.0], [1, 1, 0, 0], [0.0, 0.0, bad, 1.0])
    with pytest.raises(ValueError, match="the score of layer.weight holds values that are not finite"):
        kept(param, Rule(None, weight_magnitude), 1)
    stays = torch.tensor([1, 0, 0, 0]).bool()
    with pytest.raises(ValueError, match="the score of layer.weight holds values that are not finite"):
        grown(param, Rule(gradient_magnitude), stays, 1)


@pytest.mark.parametrize("choose", [kept, grown])
def test_a_score_of_the_wrong_shape(choose: Any):
    param = connections(torch.ones(2, 3), torch.ones(2, 3))
    extra = () if choose is kept else (torch.zeros(2, 3).bool(),)
    with pytest.raises(ValueError, match=r"^a score of layer.weight has shape \(3, 2\), not \(2, 3\)$"):
        choose(param, Rule(lambda param: param.weight.T, lambda param: param.weight.T), *extra, 1)


def test_scores_that_need_gradients_say_what_to_ask_for():
    param = connections(torch.ones(2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="gradient of layer.weight: build its Rule with gradients='at_updates'"):
        gradient_magnitude(param)
    for score in (momentum_magnitude, mean_momentum):
        with pytest.raises(ValueError, match="momentum of layer.weight: build its Rule with gradients='always'"):
            score(replace(param, _gradient=torch.ones(2, 2)))


def test_noise_depends_on_seed_step_and_name_alone():
    param = connections(torch.ones(50, 40), torch.ones(50, 40))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    noise = param.noise()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    alike = replace(param, weight=torch.zeros(50, 40), mask=torch.zeros(50, 40).bool(), _gradient=noise)
    assert torch.equal(alike.noise(), noise) and torch.equal(random_score(alike), noise)
    for change in ({"seed": 1}, {"step": 101}, {"name": "other.weight"}):
        other = replace(param, **change).noise()
        assert float((other == noise).float().mean()) < 0.01, change
    assert float(noise.min()) >= 0 and float(noise.max()) < 1
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.02)


def test_noise_grows_every_free_entry_alike():
    stays = torch.arange(10) < 4
    counts = torch.zeros(10)
    for step in range(300):
        counts += grown(connections(torch.zeros(10), stays, step=step), Rule(random_score), stays, 2)
    assert counts[:4].tolist() == [0, 0, 0, 0] and int(counts.sum()) == 600
    assert float(counts[4:].min()) > 65 and float(counts[4:].max()) < 135  # 100 expected, 8 their spread


@pytest.mark.parametrize(
    ("num_active", "fraction", "expected"),
    [
        (10, 0.3, 3), (10, 0.39, 3), (10, 0.09, 0), (10, 0.0, 0), (10, 1.0, 9), (2, 0.9, 1), (1, 1.0, 0), (0, 0.3, 0),
    ],
)  # fmt: skip
def test_the_last_entry_is_never_dropped(num_active: int, fraction: float, expected: int):
    assert num_dropped(num_active, fraction) == expected


def test_the_claim_of_a_tensor_is_the_mean_momentum_of_its_active_entries():
    param = connections([1.0, 1.0, 0.0], [1, 1, 0], [0.0, 0.0, 0.0], [-1.0, 3.0, 100.0])
    assert mean_momentum(param) == 2.0
    assert momentum_magnitude(param).tolist() == [1.0, 3.0, 100.0]


def test_presets_are_the_published_rules():
    static, of_set, snfs, rigl = (PRESETS[name] for name in ("static", "set", "snfs", "rigl"))
    assert static.grow is None and static.kind == "static"
    assert (of_set.grow, of_set.gradients, of_set.when, of_set.kind) == (random_score, "never", "after_step", "static")
    assert (snfs.grow, snfs.redistribute, snfs.kind) == (momentum_magnitude, mean_momentum, "snfs")
    assert (snfs.schedule.drop_fraction, snfs.schedule.until) == (0.5, 1.0)
    assert (rigl.grow, rigl.when, rigl.kind) == (gradient_magnitude, "replace", "rigl")
    assert (rigl.schedule.every, rigl.schedule.until, rigl.schedule.drop_fraction) == (100, 0.75, 0.3)
    assert {rule.keep for rule in PRESETS.values()} == {weight_magnitude}
    assert Rule(grow=None).redistribute is None
