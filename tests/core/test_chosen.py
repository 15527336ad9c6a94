"""Masks that are held as positions, and scores that are read in pieces, give what whole tensors give."""

import hashlib

import pytest
import torch
from torch import Tensor, nn

from glue_sparse.core import chosen, mask_file, pieces
from glue_sparse.core.active import attach, current_masks
from glue_sparse.core.chosen import Chosen, bools_of, count_of, positions_of, shape_of
from glue_sparse.core.masks import density, digest, from_positions, num_active, positions, select
from glue_sparse.scores.gradients import saliency
from glue_sparse.scores.scores import magnitude, noise

KINDS = {
    "normal": lambda x: x,
    "ties": lambda x: (x * 2).round(),
    "all equal": torch.ones_like,
    "zeros of both signs": lambda x: x.sign() * 0.0,
    "bfloat16": lambda x: x.bfloat16(),
    "transposed": lambda x: x.transpose(0, 1),
}


def sorted_choice(scores: dict[str, Tensor], budget: int, share: tuple[int, int]) -> list[Tensor]:
    """By a stable sort of all scores together."""
    flat = torch.cat([score.float().flatten() + 0.0 for score in scores.values()])
    best = flat.sort(descending=True, stable=True).indices[: budget * share[1]]
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[best[share[0] :: share[1]]] = True
    return list(mask.split([score.numel() for score in scores.values()]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [5, 1 << 20])
def test_selection_in_pieces_is_that_of_a_stable_sort(kind: str, size: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pieces, "SIZE", size)
    generator = torch.Generator().manual_seed(0)
    for budget, share in ((0, (0, 1)), (1, (0, 1)), (13, (1, 3)), (40, (0, 1)), (24, (0, 2))):
        scores = {name: KINDS[kind](torch.randn(4, 6, generator=generator)) for name in ("a", "b")}
        found = select(scores, budget, share=share)
        for mask, right in zip(found.values(), sorted_choice(scores, budget, share), strict=True):
            assert mask.dtype == torch.bool and torch.equal(mask.flatten(), right)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("budget", [0, 2, {"a": 1, "b": 1}])
def test_a_score_that_is_not_finite_is_refused_wherever_it_is(bad: float, budget: int | dict[str, int]):
    with pytest.raises(ValueError, match="score of b holds values that are not finite"):
        select({"a": torch.ones(3), "b": torch.tensor([1.0, 2.0, bad])}, budget)


@pytest.mark.parametrize("count", [0, 1, 3, 100])  # of 100: as positions, as bits, all
def test_what_is_asked_without_reading_a_mask_is_what_the_mask_says(count: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pieces, "SIZE", 7)
    scores = {"a": torch.rand(10, 10, generator=torch.Generator().manual_seed(1)), "b": torch.zeros(3)}
    masks = select(scores, {"a": count, "b": 0})
    plain = {name: mask.clone() for name, mask in select(scores, {"a": count, "b": 0}).items()}
    assert count_of(masks, "a") == count == int(plain["a"].sum()) and shape_of(masks, "a") == (10, 10)
    assert torch.equal(positions_of(masks, "a"), positions_of(plain, "a"))
    assert torch.equal(torch.cat([*bools_of(masks, "a")]), plain["a"].flatten())
    assert density(masks) == density(plain) and num_active(masks) == count
    assert torch.equal(positions(masks), positions(plain))
    assert all(isinstance(masks.held(name), chosen._Held) for name in masks), "a mask was read"
    again = from_positions(positions(masks), {name: score.shape for name, score in scores.items()})
    assert all(torch.equal(again[name], plain[name]) for name in plain)


def test_the_digest_is_that_of_the_bytes_of_bool_tensors():
    masks = select({"b": torch.arange(200.0).view(20, 10), "a": torch.zeros(2)}, 5)
    sha = hashlib.sha256()
    for name in ("a", "b"):
        sha.update(f"{name}{tuple(masks[name].shape)}".encode() + masks[name].numpy().tobytes())
    assert digest(masks) == digest(dict(masks)) == digest(select(
        {"b": torch.arange(200.0).view(20, 10), "a": torch.zeros(2)}, 5)) == sha.hexdigest()  # fmt: skip


def test_a_mask_that_was_read_can_be_changed_like_one_in_a_dict():
    masks = select({"a": torch.arange(100.0), "b": torch.zeros(100)}, 2)
    masks["a"][0] = True
    assert masks["a"].sum() == 3 and count_of(masks, "a") == 3 and digest(masks) == digest(dict(masks))
    masks["b"] = torch.ones(100, dtype=torch.bool)
    assert num_active(masks) == 103
    del masks["a"]
    assert list(masks) == ["b"]


def test_empty_masks_stand_for_tensors_that_were_not_scored_in_their_order():
    masks = select({"b": torch.arange(100.0)}, 2).over({"a": torch.Size([3]), "b": torch.Size([100])})
    assert list(masks) == ["a", "b"] and not masks["a"].any() and masks["b"].sum() == 2


def test_attaching_and_saving_reads_no_mask(tmp_path):
    model = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))
    names = tuple(name for name, _ in model.named_parameters())
    masks = select(noise(model, names), 20)
    mask_file.save(masks, tmp_path / "masks.safetensors")
    attach(model, masks)
    now = current_masks(model)
    assert isinstance(now, Chosen) and isinstance(masks, Chosen)
    assert digest(now) == digest(masks) == digest(mask_file.load(tmp_path / "masks.safetensors")[0])
    assert all(isinstance(masks.held(name), chosen._Held) for name in masks)


def test_scores_in_pieces_are_the_scores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pieces, "SIZE", 13)
    monkeypatch.setattr("glue_sparse.scores.scores.SIZE", 13)
    model = nn.Linear(9, 7)
    names = ("weight", "bias")
    x = torch.randn(4, 9)

    class Losing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"loss": self.inner(x).square().mean()}

    inner = tuple(f"inner.{name}" for name in names)
    for scores in (magnitude(model, names), noise(model, names, seed=3)):
        for name in scores:
            shape, parts = pieces.pieces_of(scores, name)
            vectors = [*parts]
            assert shape == scores[name].shape and max(map(len, vectors)) <= 13
            assert torch.equal(torch.cat(vectors), scores[name].flatten())
    found = saliency(Losing(), inner, [{"x": x}], progress=False)
    assert all(float(found[name].max()) > 0 for name in inner)
