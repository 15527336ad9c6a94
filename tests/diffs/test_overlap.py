"""What pairs of diffs have in common: counts, chance, signs and cosines against dense ones."""

from dataclasses import replace
from math import prod

import pytest
import torch
from torch import Tensor, nn

from glue_sparse import SparseDiff, attach
from glue_sparse.core.active import active_tensors
from glue_sparse.core.similarity import compare
from glue_sparse.diffs.overlap import overlap


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 5))


def diff(seed: int, density: float) -> tuple[SparseDiff, dict[str, Tensor]]:
    """A diff of both weights, and the dense changes."""
    model, random = network(), torch.Generator().manual_seed(seed)
    for parameter in (model[0].bias, model[1].bias):  # pyright: ignore[reportIndexIssue]
        parameter.requires_grad_(False)
    names = ("0.weight", "1.weight")
    masks = {name: torch.rand(model.get_parameter(name).shape, generator=random) < density for name in names}
    attach(model, dict(masks))
    for _, entries in active_tensors(model):
        change = torch.randn(len(entries.values), generator=random)
        entries.values.data.add_(change * (change > -1))  # some stay as they are
    found, base = SparseDiff.from_model(model), network()
    changes = {name: torch.zeros(mask.shape) for name, mask in masks.items()}
    for name, values in found.values.items():
        changes[name][masks[name]] = values - base.get_parameter(name).detach()[masks[name]]
    return found, changes


def test_pairs_are_counted_as_their_masks_and_changes_say():
    diffs, changes = zip(*(diff(seed, density) for seed, density in enumerate((0.3, 0.5, 0.2))), strict=True)
    found = overlap(diffs, network())
    assert [(one.first, one.second) for one in found] == [(0, 1), (0, 2), (1, 2)]
    for one in found:
        masks = [diffs[place].own_masks() for place in (one.first, one.second)]
        assert one.entries == compare(*masks)
        a, b = (torch.cat([*map(Tensor.flatten, changes[place].values())]) for place in (one.first, one.second))
        assert one.opposed == int((a * b < 0).sum()) > 0
        assert one.cosine == pytest.approx(float(torch.nn.functional.cosine_similarity(a, b, dim=0)), abs=1e-6)
        assert one.share_opposed == int((a * b < 0).sum()) / one.entries.both


def test_without_a_base_changes_are_not_spoken_of():
    diffs = [diff(seed, 0.3)[0] for seed in range(2)]
    (one,) = overlap(diffs)
    assert one.entries.both and one.opposed is None and one.cosine is None and one.share_opposed is None
    (same,) = overlap([diffs[0], diffs[0]], network())
    assert same.opposed == 0 and same.cosine == pytest.approx(1)


def test_chance_is_that_of_each_tensor():
    """By the formula of random draws, over many of them."""
    pairs = [overlap([diff(2 * seed, 0.3)[0], diff(2 * seed + 1, 0.4)[0]])[0].entries for seed in range(60)]
    both, chance = (sum(getattr(one, name) for one in pairs) / 60 for name in ("both", "by_chance"))
    assert both == pytest.approx(chance, rel=0.05) and chance == pytest.approx(250 * 0.12, rel=0.1)


def test_tensors_that_one_lacks_or_holds_whole_and_pruned_models():
    (one, _), (other, _) = diff(0, 0.3), diff(1, 0.3)
    whole = replace(other, whole={"1.weight": torch.zeros(5, 10)}, **{
        part: {name: value for name, value in getattr(other, part).items() if name != "1.weight"}
        for part in ("indices", "values", "shapes", "digests")
    })  # fmt: skip
    (found,) = overlap([one, whole], network())
    assert found.entries.entries == prod((10, 20)) + 15 and found.entries.first == len(one.values["0.weight"])
    lacking = replace(whole, whole={})
    (found,) = overlap([one, lacking])
    assert found.entries.first == one.num_active and found.entries.second == lacking.num_active
    model = network()
    attach(model, {"0.weight": torch.eye(10, 20) > 0}, "zero")
    pruned = SparseDiff.from_model(model)
    assert overlap([pruned, one])[0].entries.first == 10


def test_what_cannot_be_compared_is_refused():
    model = network(seed=1)
    attach(model, {"0.weight": torch.ones(10, 20, dtype=torch.bool)})
    other = SparseDiff.from_model(model)
    with pytest.raises(ValueError, match="give two diffs or more"):
        overlap([other])
    with pytest.raises(ValueError, match=r"0\.weight has other weights in the base of diff 2 than in that of diff 1"):
        overlap([diff(0, 0.3)[0], other])
    with pytest.raises(ValueError, match="differs from the base of these diffs"):
        overlap([other, other], network())
