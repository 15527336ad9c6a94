"""Which way a batch of several tasks takes: the one that was faster, or the one that can."""

from typing import Any

import pytest
import torch

import networks
from glue_sparse.banks import mixed_choice
from glue_sparse.banks.corrections import CannotMix, Changed
from glue_sparse.banks.mixed import MixedForward
from glue_sparse.banks.mixed_choice import MixedOrLoop, size_of
from mixed_tasks import furthest, random_task, swapping, tokens


class Clock:
    """Time that goes by in forward passes alone: a second each."""

    def __init__(self, model: Any, each: float):
        self.now = 0.0
        self.each = each
        model.register_forward_hook(self.tick)

    def tick(self, *_: Any) -> None:
        self.now += self.each

    def perf_counter(self) -> float:
        return self.now


def chooser(model: Any) -> tuple[MixedOrLoop, list[str]]:
    diffs = {name: random_task(model, seed) for seed, name in enumerate("abc")}
    mixed, prepared = MixedForward(model), list[str]()

    def prepare(task: str) -> Any:
        prepared.append(task)
        return mixed.prepare(diffs[task])

    return MixedOrLoop(mixed, swapping(model, diffs), prepare), prepared


@pytest.mark.parametrize(("each", "faster"), [(1.0, "mixed"), (-1.0, "loop")])
def test_both_ways_are_timed_and_then_the_faster_one_goes_on(each: float, faster: str, monkeypatch: pytest.MonkeyPatch):
    model = networks.bert().eval()
    choice, _ = chooser(model)
    monkeypatch.setattr(mixed_choice, "time", Clock(model, each))
    ways, answers = [], []
    for _ in range(7):
        answers.append(choice.forward(tokens(4, 5), ["a", "b", "c", "a"]))
        assert choice.last is not None
        ways.append(choice.last.way)
    assert ways == ["mixed", "loop", "mixed", "loop", *[faster] * 3]
    assert "ms mixed and" in choice.last.why  # pyright: ignore[reportOptionalMemberAccess]
    assert all(furthest(one, answers[0]) < 1e-5 for one in answers)
    choice.forward(tokens(9, 5), ["a", "b", "c", "a", "a", "a", "a", "a", "a"])
    assert choice.last is not None and choice.last.way == "mixed" and "being timed" in choice.last.why


def test_it_can_be_forced_and_one_task_needs_no_mixture():
    model = networks.bert().eval()
    choice, prepared = chooser(model)
    choice.forward(tokens(2, 5), ["a", "a"])
    assert choice.last == ("loop", "the batch has one task") and not prepared
    for way in ("loop", "mixed", "loop"):
        choice.forward(tokens(2, 5), ["a", "b"], how=way)
        assert choice.last == (way, "it was asked for")
    with pytest.raises(ValueError, match="`how` is 'both': give auto, mixed, loop"):
        choice.forward(tokens(2, 5), ["a", "b"], how="both")  # pyright: ignore[reportArgumentType]


def test_what_cannot_be_mixed_goes_round_in_a_loop():
    model = networks.bert().eval()
    choice, _ = chooser(model)

    def refuse(task: str) -> Any:
        raise CannotMix(f"{task} is odd")

    choice.prepared = refuse
    found = choice.forward(tokens(2, 5), ["a", "b"])
    assert choice.last is not None and choice.last.way == "loop" and "is odd" in choice.last.why
    assert len(found["logits"]) == 2
    with pytest.raises(CannotMix, match="is odd"):
        choice.forward(tokens(2, 5), ["a", "b"], how="mixed")


def test_sizes_are_rounded_up():
    assert size_of(tokens(5, 9), ["a", "b", "c", None, "a"]) == (4, 8, 16)
    assert size_of(tokens(4, 16), ["a"] * 4) == (1, 4, 16)


def test_entries_of_some_rows_of_a_table():
    places = torch.randperm(70, generator=torch.Generator().manual_seed(0))[:40].sort().values
    changed = Changed(places, places.float())
    rows = torch.tensor([0, 3, 4, 9])
    found = changed.of_rows(rows, 7)
    wanted = places[torch.isin(places // 7, rows)]
    assert torch.equal(found.positions, wanted) and torch.equal(found.values, wanted.float())
    assert not len(Changed(places[:0], places[:0].float()).of_rows(rows, 7).positions)
