"""Tiles: norms and masks by hand, exact counts, what moves and what becomes of its optimizer state, and the history."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from glue_sparse.core import masks, options, tiles
from glue_sparse.core.active import active_tensors, attach, current_masks
from glue_sparse.core.budgets import in_tiles
from glue_sparse.core.randomness import seeded
from glue_sparse.core.reindexing import reindex
from glue_sparse.methods.moving.drop_grow import with_changes
from glue_sparse.methods.moving.explored import mean_explored_share
from glue_sparse.methods.moving.history import History, block_statistics
from glue_sparse.methods.moving.mover import Mover
from glue_sparse.methods.moving.plain_loop import SparseOptimizer, sparsify_model
from glue_sparse.methods.moving.rules import DYNSPARSE, Connections, Rule, gradient_magnitude, grown, kept, num_dropped
from glue_sparse.methods.schedules import Schedule

MATRIX = torch.tensor([[1.0, -2.0, 0.0, 3.0], [0.0, 2.0, -3.0, 0.0], [9.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])


def whole(matrix: list[list[int]], block_size: int = 2) -> Tensor:
    return tiles.spread(torch.tensor(matrix).bool(), block_size)


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 16))


def trained(model: nn.Module, steps: SparseOptimizer, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        x = torch.randn(8, 32, generator=seeded(0, "tiles", number))
        model(x).square().mean().backward()
        steps.step()
        steps.zero_grad()


def test_norms_of_tiles_by_hand():
    assert tiles.pooled(MATRIX, 2, "l1").tolist() == [[5, 6], [9, 4]]
    assert tiles.pooled(MATRIX, 2, "l2").tolist() == [[3, pytest.approx(18**0.5)], [9, 2]]
    assert tiles.pooled(MATRIX, 2, "linf").tolist() == [[2, 3], [9, 1]]
    assert tiles.pooled(MATRIX, 1) is MATRIX


def test_masks_of_tiles_and_of_entries():
    mask = whole([[1, 0], [0, 1]])
    assert mask.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert tiles.gathered(mask, 2).int().tolist() == [[1, 0], [0, 1]]
    mask[0, 0] = False
    with pytest.raises(ValueError, match="^the mask is not made of whole tiles of 2x2$"):
        tiles.gathered(mask, 2)


def test_the_best_tiles_are_selected():
    chosen = masks.select({"w": MATRIX}, 8, block_size=2)
    assert torch.equal(chosen["w"], whole([[0, 1], [1, 0]]))
    with pytest.raises(ValueError, match="^7 entries are not a whole number of tiles of 2x2$"):
        masks.select({"w": MATRIX}, {"w": 7}, block_size=2)
    with pytest.raises(ValueError, match="^tiles of 3x3 do not divide w, a matrix of 4x4: choose another"):
        masks.select({"w": MATRIX}, 9, block_size=3)


@pytest.mark.parametrize("norm, dropped", [("l1", 0), ("l2", 1), ("linf", 2)])
def test_the_smallest_tile_by_each_norm_is_dropped(norm: options.Norm, dropped: int):
    # three tiles: l1 7.6, 7.9, 14.3; l2 5.9, 5.6, 7.2; linf 5.6, 4, 3.8
    weight = torch.tensor([[5.6, 2.0, 4.0, 3.9, 3.8, 3.5], [0.0, 0.0, 0.0, 0.0, 3.5, 3.5]])
    param = Connections("w", weight, torch.ones(2, 6).bool(), 0, 0)
    stays = tiles.gathered(kept(param, replace(DYNSPARSE, block_size=2, block_norm=norm), 8), 2)
    assert [bool(stay) for stay in stays[0]] == [number != dropped for number in range(3)]


def test_norms_disagree_where_they_should():
    # a tile with one large entry, and one with four middling ones
    weight = torch.tensor([[5.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    param = Connections("w", weight, torch.ones(2, 4).bool(), 0, 0)
    for norm, first in (("l1", False), ("l2", True), ("linf", True)):
        stays = kept(param, replace(DYNSPARSE, block_size=2, block_norm=norm), 4)
        assert bool(stays[0, 0]) is first


def test_growth_by_gradient_takes_the_tile_with_the_largest_norm():
    rule = Rule(gradient_magnitude, gradients="at_updates", block_size=2)
    nothing = torch.zeros(4, 4).bool()
    param = Connections("w", torch.zeros(4, 4), nothing, 0, 0, -MATRIX)
    assert torch.equal(grown(param, rule, nothing, 4), whole([[0, 0], [1, 0]]))


def test_what_was_just_dropped_is_never_grown():
    mask, stays = whole([[1, 1], [0, 0]]), whole([[1, 0], [0, 0]])
    param = Connections("w", MATRIX, mask, 0, 0, torch.ones(4, 4))
    for step in range(20):
        new = grown(replace(param, step=step), replace(DYNSPARSE, block_size=2), stays, 8)
        assert torch.equal(new, whole([[0, 0], [1, 1]]))
    keeps = replace(DYNSPARSE, block_size=2, regrown="keep")
    again = [grown(replace(param, step=step), keeps, stays, 4) for step in range(20)]
    assert any(bool(new[0, 2]) for new in again)


@pytest.mark.parametrize(
    "active, fraction, block_size, dropped",
    [(10, 0.39, 1, 3), (6 * 256, 0.39, 16, 2 * 256), (6 * 256, 0.25, 16, 2 * 256), (256, 0.9, 16, 0), (0, 0.5, 1, 0)],
)
def test_how_many_are_dropped(active: int, fraction: float, block_size: int, dropped: int):
    assert num_dropped(active, fraction, block_size) == dropped


def test_counts_are_whole_tiles():
    assert in_tiles({"w": 103}, {"w": (32, 32)}, 4) == {"w": 96}
    assert in_tiles({"w": 104}, {"w": (32, 32)}, 4) == {"w": 112}
    with pytest.raises(ValueError, match="^0.0312 of w is less than one of its 4 tiles of 16x16: use a larger"):
        in_tiles({"w": 32}, {"w": (32, 32)}, 16)


def test_updates_end_equal_intervals():
    schedule = Schedule(intervals=4, drop_fraction=0.5).in_steps(12)
    assert [step for step in range(12) if schedule.is_update(step)] == [2, 5, 8]  # after 3, 6 and 9 steps, not 12
    assert schedule.fraction(2) == pytest.approx(0.25 * (1 + 0.5**0.5))
    assert schedule.fraction(5) == pytest.approx(0.25)
    for n, steps in ((7, 50), (3, 10), (8, 12), (5, 5), (160, 757), (1, 9)):
        schedule = Schedule(intervals=n).in_steps(steps)
        assert sum(schedule.is_update(step) for step in range(steps)) == n - 1 == schedule.num_updates
    with pytest.raises(ValueError, match="^`num_updates` 11 needs at least as many steps, and this run has 10"):
        Schedule(intervals=11).in_steps(10)


def test_coverage_follows_the_formula():
    """Uncovered u <- u (1 - pr_k (1 - s) / s) where growth is uniform over what was inactive, from u = s."""
    model = nn.Linear(512, 512, bias=False)
    sparsify_model(model, 0.9, start="random")
    mover = Mover(with_changes(DYNSPARSE, intervals=40), 40, seed=0)
    uncovered, optimizer = 0.9, torch.optim.SGD(model.parameters(), 0.1)
    (entries,) = (held for _, held in active_tensors(model))
    for step in range(40):
        entries.values.data.normal_(generator=seeded(1, step))  # so that what is dropped is a fair draw
        mover.after_step(model, step, optimizer)
        if mover.is_update(step):
            uncovered *= 1 - mover.schedule.fraction(step) / 9
    assert mean_explored_share(model) == pytest.approx(1 - uncovered, abs=0.005)
    assert mean_explored_share(model) == pytest.approx(0.702, abs=0.01)  # as derived for n = 40 at 90 %


@pytest.mark.parametrize("block_size", [1, 4, 16])
def test_tiles_move_as_a_whole_and_their_number_stays(block_size: int):
    model = network()
    sparsify_model(model, 0.75, start="random", block_size=block_size)
    before = current_masks(model)
    rule = with_changes(DYNSPARSE, intervals=5, block_size=block_size)
    steps = SparseOptimizer(torch.optim.AdamW(model.parameters(), 0.01), model, rule, num_steps=20)
    trained(model, steps, 20)
    for name, mask in current_masks(model).items():
        assert int(mask.sum()) == int(before[name].sum()) == mask.numel() // 4
        tiles.gathered(mask, block_size)
    assert any(not torch.equal(mask, before[name]) for name, mask in current_masks(model).items())
    assert len(steps.mover.history.facts()) == 4


@pytest.mark.parametrize("entrants, expected", [("zero", 0.0), ("mean", 2.0)])
def test_moments_of_entrants(entrants: str, expected: float):
    model = nn.Linear(4, 2, bias=False)
    attach(model, {"weight": torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]]).bool()}, "zero")
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    values = next(p for p in model.parameters() if p.requires_grad)
    optimizer.state[values]["exp_avg_sq"][:] = torch.tensor([1.0, 3.0])
    optimizer.state[values]["exp_avg"][:] = torch.tensor([1.0, 3.0])
    new = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    reindex(model, {"weight": new}, optimizer, entrants)  # pyright: ignore[reportArgumentType]
    assert optimizer.state[values]["exp_avg_sq"].tolist() == [1, 3, expected]
    assert optimizer.state[values]["exp_avg"].tolist() == [1, 3, 0]


def test_a_history_by_hand(tmp_path):
    history = History(1)
    first = torch.tensor([[1, 1, 0, 0]]).bool()
    second = torch.tensor([[1, 0, 1, 0]]).bool()
    third = torch.tensor([[1, 0, 0, 1]]).bool()
    history.moved("w", first, second)
    history.updated(9, 0.5, 0.75)
    history.moved("w", second, third)
    history.updated(19, 0.25, 1.0)
    one, two = history.facts()
    assert one["removed_new_of_new"] is None and one["moved"] == 1
    assert two == {
        "step": 19, "fraction": 0.25, "explored": 1.0, "moved": 1, "removed_new_of_new": 1.0,
        "removed_new_of_removed": 1.0,
    }  # fmt: skip
    other = History(1)
    other.load_state(history.state())
    assert other.facts() == history.facts() and other.intervals["w"].tolist() == [[2, 1, 1, 0]]
    other.moved("w", third, first)
    other.updated(29, 0.1, 1.0)
    assert other.facts()[-1]["removed_new_of_new"] == 1.0


def test_where_tiles_lie():
    model = nn.Linear(40, 20, bias=False)
    mask = torch.zeros(20, 40).bool()
    mask[:2, :4] = True
    mask[0:2, 10:12] = True
    attach(model, {"weight": mask}, "zero")
    found = block_statistics(model, 2)["weight"]
    assert found.pop("active") == 3
    assert found == pytest.approx({"empty_rows": 0.9, "empty_columns": 0.85, "in_top_columns": 2 / 3})


def test_resuming_a_run_on_tiles_is_exact():
    rule = with_changes(DYNSPARSE, intervals=4, block_size=4)

    def started() -> tuple[nn.Module, SparseOptimizer]:
        model = network()
        sparsify_model(model, 0.75, start="random", block_size=4)
        return model, SparseOptimizer(torch.optim.AdamW(model.parameters(), 0.01), model, rule, num_steps=24)

    model, steps = started()
    trained(model, steps, 24)
    first, of_first = started()
    trained(first, of_first, 9)  # in the middle of the second interval
    second, of_second = started()
    second.load_state_dict(first.state_dict())
    of_second.load_state_dict(of_first.state_dict())
    trained(second, of_second, 15, first=9)
    for (key, tensor), other in zip(model.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), key
    assert of_second.mover.history.facts() == steps.mover.history.facts()
