"""Selection by hand-worked examples: exact budgets, ties, signs, and files."""

from pathlib import Path

import pytest
import torch

from glue_sparse.analysis.similarity import compare
from glue_sparse.core import mask_file, masks
from glue_sparse.core.masks import select


def test_joint_selection_by_hand():
    scores = {"a": torch.tensor([[3.0, 1.0], [-2.0, 5.0]]), "b": torch.tensor([4.0, 0.0])}
    chosen = select(scores, 3)  # 5, 4, 3
    assert chosen["a"].tolist() == [[True, False], [False, True]]
    assert chosen["b"].tolist() == [True, False]


def test_negative_scores_rank_below_zero_and_minus_zero_equals_zero():
    scores = {"a": torch.tensor([-1.0, -0.0, 0.0, -3.0])}
    assert select(scores, 1)["a"].tolist() == [False, True, False, False]
    assert select(scores, 3)["a"].tolist() == [True, True, True, False]


@pytest.mark.parametrize("budget", [0, 1, 2, 4, 5])
def test_ties_go_to_the_earlier_entry_and_the_budget_is_exact(budget: int):
    scores = {"a": torch.ones(2, 2), "b": torch.ones(1)}
    flat = torch.cat([m.flatten() for m in select(scores, budget).values()])
    assert flat.tolist() == [True] * budget + [False] * (5 - budget)


def test_selection_equals_a_stable_sort():
    generator = torch.Generator().manual_seed(0)
    for trial in range(20):
        values = torch.randn(200, generator=generator)
        if trial % 2:
            values = (values * 3).round() / 3  # many ties
        scores = {"a": values[:120].view(10, 12), "b": values[120:]}
        budget = int(torch.randint(0, 201, (1,), generator=generator))
        expected = torch.zeros(200, dtype=torch.bool)
        expected[values.sort(descending=True, stable=True).indices[:budget]] = True
        flat = torch.cat([m.flatten() for m in select(scores, budget).values()])
        assert torch.equal(flat, expected)


def test_budget_per_tensor():
    scores = {"a": torch.tensor([1.0, 9.0]), "b": torch.tensor([5.0, 6.0, 7.0])}
    chosen = select(scores, {"a": 1, "b": 2})
    assert chosen["a"].tolist() == [False, True] and chosen["b"].tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("scores", "budget", "message"),
    [
        ({"a": torch.ones(3)}, 4, "cannot choose 4 of 3"),
        ({"a": torch.ones(3)}, -1, "cannot choose -1"),
        ({"a": torch.tensor([1.0, float("nan")])}, 1, "not finite"),
        ({"a": torch.ones(3)}, {"b": 1}, "different tensors"),
    ],
)
def test_bad_selection(scores, budget, message):
    with pytest.raises(ValueError, match=message):
        select(scores, budget)


def test_describe():
    first = {"a": torch.tensor([True, True, False, False])}
    second = {"a": torch.tensor([True, False, True, True])}
    assert masks.num_active(second) == 3
    assert masks.density(first) == 0.5
    assert compare(first, second).overlap == 0.5  # one of the two entries of the smaller mask
    assert masks.digest(first) != masks.digest(second)
    assert masks.digest(first) == masks.digest({"a": first["a"].clone()})


def test_file_round_trip_and_foreign_files(tmp_path: Path):
    path = tmp_path / "masks.safetensors"
    mask = {"w": torch.tensor([[True, False], [False, True]]), "empty": torch.zeros(3, dtype=torch.bool)}
    mask_file.save(mask, path)
    back, inactive = mask_file.load(path)
    assert back.keys() == mask.keys() and all(torch.equal(back[n], mask[n]) for n in mask)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="damaged"):
        mask_file.load(path)
    with pytest.raises(ValueError, match="missing"):
        mask_file.load(tmp_path / "absent")


def test_shares_take_every_nth_rank():
    scores = {"a": torch.tensor([[9.0, 1.0], [7.0, 8.0]]), "b": torch.tensor([6.0, 10.0, 0.0])}
    shares = [masks.select(scores, 2, share=(i, 3)) for i in range(3)]
    # ranks: b1 = 10, a0 = 9, a3 = 8, a2 = 7, b0 = 6, a1 = 1
    assert [masks.positions(share).tolist() for share in shares] == [[2, 5], [0, 4], [1, 3]]
    assert torch.equal(masks.select(scores, 3)["a"], masks.select(scores, 3, share=(0, 1))["a"])
    ties = {"a": torch.ones(6)}
    assert [masks.positions(masks.select(ties, 2, share=(i, 2))).tolist() for i in (0, 1)] == [[0, 2], [1, 3]]
    with pytest.raises(ValueError, match="cannot choose 4 times 2 of 7 entries"):
        masks.select(scores, 2, share=(0, 4))


def test_positions_and_back():
    found = {"a": torch.rand(3, 4) < 0.5, "b": torch.rand(5) < 0.5, "c": torch.zeros(2, dtype=torch.bool)}
    there = masks.from_positions(masks.positions(found), {name: mask.shape for name, mask in found.items()})
    assert masks.positions(found).dtype == torch.int32
    assert all(torch.equal(there[name], mask) for name, mask in found.items())


def odd_scores(kind: str) -> dict[str, torch.Tensor]:
    """Scores of a kind in three tensors of other sizes."""
    generator = torch.Generator().manual_seed(0)
    change = {
        "ties and zeros of both signs": lambda x: x.round() * torch.tensor([1.0, -1.0])[(x > 0).long()],
        "denormal": lambda x: x * 1e-41, "bfloat16": lambda x: x.bfloat16(), "small float16": lambda x: x.half() * 1e-6,
        "below zero": lambda x: -x.abs().round(), "zero": lambda x: -0.0 * x,
    }[kind]  # fmt: skip
    return {str(i): change(torch.randn(size, generator=generator)) for i, size in enumerate((40, 0, 23))}


@pytest.mark.parametrize(
    "kind", ["ties and zeros of both signs", "denormal", "bfloat16", "small float16", "below zero", "zero"]
)
def test_scores_of_any_kind_are_chosen_as_by_a_stable_sort(kind: str):
    scores = odd_scores(kind)
    flat = torch.cat([score.double() for score in scores.values()])
    order = (flat + 0.0).argsort(descending=True, stable=True)
    for budget in (0, 1, 20, 62, 63):
        expected = torch.zeros(63, dtype=torch.bool)
        expected[order[:budget]] = True
        assert torch.equal(torch.cat([*select(scores, budget).values()]), expected)


@pytest.mark.parametrize("bad", ["inf", "-inf", "nan"])
def test_a_score_that_is_not_finite_is_named(bad: str):
    scores = {"good": torch.ones(3), "bad one": torch.tensor([1.0, float(bad)])}
    with pytest.raises(ValueError, match="the score of bad one holds values that are not finite"):
        select(scores, 1)
