"""Dense and sparse phases by turns, through a real Trainer on a tiny BERT."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glue_sparse import SparseTrainer
from glue_sparse.core.masks import Masks
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.core.params import encoder_matrices
from glue_sparse.costs.flops import forward_flops
from glue_sparse.costs.formulas import training_flops
from glue_sparse.methods.moving.alternate import Alternate
from glue_sparse.methods.moving.drop_grow import DropGrow
from glue_sparse.methods.moving.phases import Phases
from glue_sparse.methods.moving.rules import STATIC
from networks import bert, collate
from rare import rarely
from training import ROWS, StopAt, trainer
from watching import Watch, equal_runs

NAMES = tuple(encoder_matrices(bert()))
Seen = list[tuple[Masks, dict[str, Tensor]]]


def go(folder: Path, method: Alternate, **changes: Any) -> tuple[SparseTrainer, Seen]:
    """A run of 12 steps; masks and weights before it and after each step."""
    watch = Watch()
    run = trainer(folder, bert(), method, callbacks=[watch], **changes)
    watch.run = run
    run.train()
    return run, [({}, current_tensors(bert())), *watch.after]


def test_phases_by_hand():
    run = Phases(4, "dense", 10)  # 0, 2.5, 5, 7.5: halves round up
    assert [run.start(phase) for phase in range(5)] == [0, 3, 5, 8, 10]
    assert [run.starting(step) for step in range(10)] == [0, None, None, 1, None, 2, None, None, 3, None]
    assert [run.is_dense(phase) for phase in range(4)] == [True, False, True, False] and not run.ends_dense
    assert run.dense_share == (3 + 3) / 10
    assert Phases(3, "sparse", 10).dense_share == 0.4  # from 3 up to 7
    assert not Phases(3, "sparse", 10).ends_dense and Phases(2, "sparse", 10).ends_dense


def test_every_phase_starts_at_exactly_one_step():
    for num_steps in range(2, 40):
        for num_phases in range(2, num_steps + 1):
            run = Phases(num_phases, "dense", num_steps)
            starts = [run.starting(step) for step in range(num_steps)]
            assert [phase for phase in starts if phase is not None] == list(range(num_phases))
            assert all(run.start(phase) == step for step, phase in enumerate(starts) if phase is not None)
            assert all(abs(run.start(k) - k * num_steps / num_phases) <= 0.5 for k in range(num_phases))


@pytest.mark.parametrize(
    ("selection", "inactive"),
    rarely(
        product(["fixed", "magnitude", "random"], ["zero", "frozen"]),
        [("fixed", "zero"), ("magnitude", "frozen"), ("random", "zero")],
    ),
)
def test_what_trains_in_a_phase_and_what_does_not(tmp_path: Path, selection: Any, inactive: Any):
    """Phases of three steps: dense, sparse, dense, sparse."""
    method = Alternate(4, density=0.2, selection=selection, inactive=inactive, seed=3)
    run, seen = go(tmp_path, method)
    for step in range(12):
        old, (masks, new) = seen[step][1], seen[step + 1]
        assert masks.keys() == set(NAMES)
        for name, mask in masks.items():
            if step // 3 in (0, 2):
                assert mask.all() and not torch.equal(new[name], old[name])
                if step % 3 == 2:  # by then all of an entrant's gradients have been
                    assert (new[name] != old[name]).float().mean() > 0.99
                continue
            assert int(mask.sum()) == round(0.2 * mask.numel())
            assert (new[name][mask] != old[name][mask]).float().mean() > 0.99
            kept = torch.zeros_like(old[name]) if inactive == "zero" else old[name]
            assert torch.equal(new[name][~mask], kept[~mask])
    first, second = seen[4][0], seen[10][0]
    assert all(torch.equal(first[n], seen[6][0][n]) for n in NAMES)
    if selection != "magnitude":
        assert all(torch.equal(first[n], second[n]) == (selection == "fixed") for n in NAMES)
    else:
        for phase in (1, 3):
            (masks, _), weights = seen[3 * phase + 1], seen[3 * phase][1]
            for n in NAMES:
                largest = weights[n].abs().flatten().topk(int(masks[n].sum())).indices
                assert masks[n].flatten()[largest].all()
    active = [log["active"] for log in run.state.log_history if "active" in log]
    assert active[:6] == pytest.approx([1, 1, 1, 0.2, 0.2, 0.2], abs=0.01)


def test_the_final_model_is_that_of_the_last_phase(tmp_path: Path):
    for first in ("dense", "sparse"):
        run, _ = go(tmp_path / first, Alternate(2, first=first, density=0.3))
        weights = current_tensors(run.network)
        zeros = torch.cat([(weights[n] == 0).flatten() for n in NAMES]).float().mean()
        assert float(zeros) == pytest.approx(0.7 if first == "dense" else 0, abs=0.01)


def test_a_fixed_mask_is_that_of_a_static_run(tmp_path: Path):
    masks = Alternate(2, first="sparse", density=0.2, seed=5).prepare(bert(), (), lambda count: [])
    static = DropGrow(STATIC, density=0.2, start="random", seed=5).prepare(bert(), (), lambda count: [])
    assert all(torch.equal(masks[n], static[n]) for n in NAMES) and masks.keys() == static.keys()
    _, seen = go(tmp_path, Alternate(2, density=0.2, seed=5))
    assert all(torch.equal(seen[-1][0][n], static[n]) for n in NAMES)


@pytest.mark.parametrize(
    ("first", "selection", "inactive", "stop"),  # it stops inside a phase, or where one ends
    rarely(
        [
            (*plan, stop)
            for plan in [("dense", "magnitude", "zero"), ("sparse", "random", "frozen"), ("sparse", "fixed", "zero")]
            for stop in (5, 6)
        ],
        [("dense", "magnitude", "zero", 5), ("sparse", "random", "frozen", 6)],
    ),
)
def test_resumed_equals_uninterrupted(tmp_path: Path, stop: int, first: Any, selection: Any, inactive: Any):
    def how() -> Alternate:
        return Alternate(4, first=first, density=0.2, selection=selection, inactive=inactive)

    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": stop}
    whole = trainer(tmp_path / "whole", bert(), how(), **settings)
    whole.train()
    trainer(tmp_path / "cut", bert(), how(), callbacks=[StopAt(stop)], **settings).train()
    resumed = trainer(tmp_path / "cut", bert(), how(), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / f"checkpoint-{stop}"))
    equal_runs(whole, resumed)
    assert resumed.method.flops_rule(12, None)[0](FORWARD) == whole.method.flops_rule(12, None)[0](FORWARD)  # type: ignore


BATCH = collate(ROWS[:4])
FORWARD = forward_flops(bert(), BATCH)


@pytest.mark.parametrize(
    ("first", "inactive"),
    rarely(product(["dense", "sparse"], ["zero", "frozen"]), [("dense", "zero"), ("sparse", "frozen")]),
)
def test_flops_are_the_mean_over_phases(tmp_path: Path, first: Any, inactive: Any):
    """Three phases of 12 steps: the middle one is a third."""
    run, _ = go(tmp_path, Alternate(3, first=first, density=0.25, inactive=inactive))
    rule, period = run.method.flops_rule(12, None)
    static = trainer(tmp_path, bert(), DropGrow(STATIC, density=0.25, inactive=inactive))
    static.choose()
    sparse = training_flops("static" if inactive == "zero" else "frozen", forward_flops(static.network, BATCH))
    share = 2 / 3 if first == "dense" else 1 / 3
    expected = share * 3 * FORWARD.dense + (1 - share) * sparse
    assert training_flops(rule, forward_flops(run.network, BATCH), period) == pytest.approx(expected)


def test_tiles_are_chosen_whole(tmp_path: Path):
    for selection in ("random", "magnitude"):
        _, seen = go(tmp_path / selection, Alternate(2, density=0.25, selection=selection, block_size=8))
        for mask in seen[-1][0].values():
            rows, columns = mask.shape
            tiles = mask.view(rows // 8, 8, columns // 8, 8).sum((1, 3))
            assert set(tiles.flatten().tolist()) == {0, 64} and int(mask.sum()) == mask.numel() // 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_phases": 1}, "`num_phases` must be at least 2"),
        ({"first": "frozen"}, "unknown first phase 'frozen'"),
        ({"selection": "largest"}, "unknown selection 'largest'"),
    ],
)
def test_options_that_do_not_exist(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Alternate(**changes)


def test_what_cannot_work_is_one_sentence(tmp_path: Path):
    with pytest.raises(ValueError, match="`num_phases` 13 needs at least as many steps, and this run has 12"):
        trainer(tmp_path, bert(), Alternate(13)).train()
    with pytest.raises(ValueError, match="cannot train as workers"):
        Alternate().prepare_shares(bert(), (), lambda count: [], 2)
    with pytest.raises(ValueError, match="leaves nothing of bert.encoder"):
        trainer(tmp_path, bert(), Alternate(density=1e-4)).train()
