"""Masks by a named score: how the budget is shared out, a second choice after a warm-up, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from glue_sparse import FixedMask, SparseDiff, noise
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.core import budgets
from glue_sparse.core.masks import digest
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.methods.registry import build_method, default_folder
from glue_sparse.scores.fisher import fisher
from glue_sparse.scores.named import named
from glue_sparse.scores.scores import magnitude
from networks import bert, collate, examples
from rare import rarely
from training import StopAt, trainer
from watching import equal_runs, watched

HEAD = ("classifier.weight", "classifier.bias")


def batches(count: int) -> list[dict[str, torch.Tensor]]:
    rows = examples(count)
    return [collate(rows[i : i + 8]) for i in range(0, count, 8)]


def built(**values: Any) -> Any:
    return build_method(MethodArguments(**{"density": 0.05, "num_samples": 16, **values}), 3)


def chosen(**values: Any) -> dict[str, torch.Tensor]:
    return built(**values).prepare(bert(), HEAD, batches)


def test_methods_with_a_name_of_their_own_choose_what_their_score_chooses():
    for method, score in (("fish", "fisher"), ("random", "random"), ("magnitude", "magnitude")):
        assert digest(chosen(method=method)) == digest(chosen(method="score", score=score))
    model = bert()
    names = tuple(name for name in dict(model.named_parameters()) if name not in HEAD)
    for score, expected in (("saliency", named("saliency", progress=False)), ("gradient", named("gradient"))):
        by_hand = FixedMask(expected, density=0.05, num_samples=16).prepare(model, HEAD, batches)
        assert set(by_hand) == set(names) and digest(chosen(method="score", score=score)) == digest(by_hand)


def test_those_that_had_a_name_keep_their_bits():
    """As they were chosen before scores had names: by the run's own seed, of all tensors together."""
    options = {"estimator": "sampled", "power": "absolute"}
    right = FixedMask(lambda *given: fisher(*given, **options, seed=3), density=0.05, num_samples=16)  # type: ignore
    found = chosen(method="fish", fisher_estimator="sampled", fisher_power="absolute")
    assert digest(found) == digest(right.prepare(bert(), HEAD, batches))
    drawn = FixedMask(lambda *given: noise(*given, seed=3), density=0.05)
    assert digest(chosen(method="random")) == digest(drawn.prepare(bert(), HEAD, batches))


@pytest.mark.parametrize("density", [0.021, 0.05, 0.3])
@pytest.mark.parametrize("method", ["random", "magnitude"])
def test_every_distribution_meets_the_budget_with_the_head_charged(method: str, density: float):
    model = bert()
    num_entries = sum(p.numel() for p in model.parameters())
    num_head = sum(model.get_parameter(name).numel() for name in HEAD)
    shapes = {name: p.shape for name, p in model.named_parameters() if name not in HEAD}
    found = {}
    for distribution in (None, "global", "uniform", "erk"):
        masks = chosen(method=method, density=density, distribution=distribution)
        assert sum(int(mask.sum()) for mask in masks.values()) + num_head == int(density * num_entries)
        found[distribution] = masks
    assert digest(found[None]) == digest(found["global"]) != digest(found["uniform"])
    total = int(density * num_entries) - num_head
    for mask in found["uniform"].values():
        assert abs(int(mask.sum()) - total / (num_entries - num_head) * mask.numel()) < 1
    expected = budgets.erdos_renyi(shapes, total)
    assert {name: int(mask.sum()) for name, mask in found["erk"].items()} == expected
    if method == "magnitude":
        for name, mask in found["erk"].items():
            weight = model.get_parameter(name).detach().abs()
            assert mask.all() or not mask.any() or weight[mask].min() >= weight[~mask].max()


def test_shares_for_workers_are_disjoint_within_each_tensor_too():
    method = FixedMask(magnitude, density=0.05, distribution="uniform")
    masks = method.prepare_shares(bert(), HEAD, batches, 2)
    for name, mask in masks[0].items():
        assert not (mask & masks[1][name]).any() and mask.sum() == masks[1][name].sum()


@pytest.mark.parametrize("after", [2, 1 / 3])
def test_a_late_choice_is_made_once_on_the_warm_model_and_undoes_what_left(tmp_path: Path, after: float):
    score = named("saliency", progress=False)
    method = FixedMask(score, density=0.05, num_samples=16, choose_after=after)
    run, watch = watched(tmp_path, method, num_train_epochs=1)
    moves = [step for step in range(1, 6) if any(
        not torch.equal(watch.after[step - 1][0][name], mask) for name, mask in watch.after[step][0].items()
    )]  # fmt: skip
    assert moves == [2]
    warm, base, final = bert(), current_tensors(bert()), watch.after[-1]
    for name, tensor in watch.after[1][1].items():
        current_tensors(warm)[name].data.copy_(tensor)
    right = FixedMask(score, density=0.05, num_samples=16)
    expected = right.prepare(warm, run.head, lambda count: run.sample_batches(count, draw=1))
    assert digest(expected) == digest(final[0])
    stayed = changed = 0
    for name, mask in final[0].items():
        assert torch.equal(final[1][name][~mask], base[name][~mask])
        changed += int((watch.after[1][1][name] != base[name])[~mask].sum())
        both = mask & watch.after[1][0][name]
        stayed += int((watch.after[2][1][name] != base[name])[both].sum())
    assert changed > 10 and stayed > 10  # the warm-up did train what left, and what stayed trains on
    num_active = sum(int(mask.sum()) for mask in final[0].values())
    assert run.sparse_diff().num_active == num_active
    restored = bert()
    run.sparse_diff().merge_into(restored)
    assert all(torch.equal(t, current_tensors(run.network)[name]) for name, t in current_tensors(restored).items())


@pytest.mark.parametrize("stop", rarely([2, 1, 4], [2]))
def test_a_run_stopped_before_at_and_after_the_choice_goes_on_alike(tmp_path: Path, stop: int):
    def method() -> FixedMask:
        score = named("saliency", progress=False)
        return FixedMask(score, density=0.05, num_samples=16, choose_after=2)

    whole = trainer(tmp_path / "whole", bert(), method(), num_train_epochs=1)
    whole.train()
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": stop, "num_train_epochs": 1}
    trainer(tmp_path / "cut", bert(), method(), callbacks=[StopAt(stop)], **saving).train()
    checkpoint = tmp_path / "cut" / f"checkpoint-{stop}"
    again = trainer(tmp_path / "cut", bert(), method(), **saving)
    again.train(resume_from_checkpoint=str(checkpoint))
    equal_runs(whole, again)
    stored = SparseDiff.from_pretrained(checkpoint)
    assert stored.num_active == whole.sparse_diff().num_active


def test_what_contradicts_itself_is_one_sentence(tmp_path: Path):
    for values, message in (
        ({"method": "score", "score": "saliency", "fisher_power": "absolute"}, "^`fisher_power` has no effect with"),
        ({"method": "fish", "score": "saliency"}, "--score goes with --method score"),
        ({"method": "fish", "distribution": "row"}, "has no --distribution row"),
        ({"method": "fish", "choose_after": 4, "legacy_decay": True}, "give one of them$"),
        ({"method": "fish", "choose_after": 4, "update_every": "2"}, "give one of them$"),
        ({"method": "fish", "choose_after": 2.5}, "^`choose_after`"),
        ({"method": "bitfit", "choose_after": 4}, "--choose_after goes with"),
    ):
        with pytest.raises(ValueError, match=message):
            built(**values)
    with pytest.raises(ValueError, match="leave `choose_after` out"):
        FixedMask(masks={}, choose_after=4)
    with pytest.raises(ValueError, match="did you mean erk"):
        FixedMask(noise, distribution="er")  # type: ignore
    with pytest.raises(ValueError, match="`choose_after` 40 leaves no steps"):
        trainer(tmp_path, bert(), FixedMask(noise, density=0.05, choose_after=40)).train()
    for after in (5, 0.9):
        FixedMask(noise, choose_after=after).check(bert(), HEAD, 100)
        with pytest.raises(ValueError, match="in a run of 6 steps: lower it"):
            FixedMask(noise, choose_after=after).check(bert(), HEAD, 6)


def test_a_run_has_a_folder_for_each_score_and_distribution():
    values = {"density": 0.005, "score": "gradient", "distribution": None}
    assert default_folder({**values, "method": "fish"}) == "fish-0.005"
    assert default_folder({**values, "method": "score", "score": "grasp"}) == "score-grasp-0.005"
    assert default_folder({**values, "method": "fish", "distribution": "erk"}) == "fish-0.005-erk"
