"""Augmentation of a batch, beside a slow version that does one image after the other."""

import pytest
import torch
from torch import Tensor

from glue_sparse.models.pixels import Pixels
from glue_sparse.tasks.images import CUTOUT, Draws, ImageCollator, crop_and_flip, cut_out, draws_for


def batch(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)


def slowly(pixels: Tensor, draws: Draws) -> Tensor:
    images = []
    for i, image in enumerate(pixels.float()):
        padded = torch.nn.functional.pad(image[None], (4, 4, 4, 4), mode="reflect")[0]
        top, left = int(draws.top[i]), int(draws.left[i])
        crop = padded[:, top : top + 32, left : left + 32]
        if draws.flip[i]:
            crop = crop.flip(2)
        images.append(crop)
    return torch.stack(images)


@pytest.mark.parametrize("count", [1, 33])
def test_crop_and_flip_as_one_by_one(count: int):
    pixels = batch(count)
    draws = draws_for(pixels, seed=3)
    found = crop_and_flip(pixels, draws)
    assert found.dtype == torch.uint8 and found.shape == pixels.shape
    assert torch.equal(found.float(), slowly(pixels, draws))


def test_every_place_of_the_crop():
    pixels = batch(1).expand(162, -1, -1, -1)
    top, left, flip = torch.meshgrid(torch.arange(9), torch.arange(9), torch.arange(2), indexing="ij")
    zero = torch.zeros(162, dtype=torch.long)
    draws = Draws(top.flatten(), left.flatten(), flip.flatten().bool(), zero, zero)
    assert torch.equal(crop_and_flip(pixels, draws).float(), slowly(pixels, draws))


def test_the_box_is_whole_and_inside():
    pixels = torch.ones(500, 3, 32, 32)
    draws = draws_for(batch(500), seed=0)
    found = cut_out(pixels, draws)
    assert torch.equal((found == 0).sum((1, 2, 3)), torch.full((500,), 3 * CUTOUT * CUTOUT))
    for image, top, left in zip(found, draws.cut_top.tolist(), draws.cut_left.tolist(), strict=True):
        assert not image[:, top : top + 8, left : left + 8].any()
    assert {draws.cut_top.min().item(), draws.cut_left.max().item()} == {0, 24}


def test_draws_are_spread_and_depend_on_seed_and_content_alone():
    draws = draws_for(batch(500), seed=1)
    assert set(draws.top.tolist()) == set(draws.left.tolist()) == set(range(9))
    assert 200 < int(draws.flip.sum()) < 300
    torch.manual_seed(5)  # the global state plays no part
    state = torch.get_rng_state()
    again = draws_for(batch(500), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(getattr(draws, name), getattr(again, name)) for name in vars(draws))
    for other in (draws_for(batch(500), seed=2), draws_for(batch(500, seed=1), seed=1)):
        assert not torch.equal(draws.top, other.top)


def test_normalised_has_the_named_mean_and_deviation():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    found = Pixels((0.5, 0.0, 1.0), (0.5, 1.0, 2.0)).normalised(pixels)
    assert found[:, :, 0, 0].tolist() == [[-1.0, 0.0, -0.5], [1.0, 1.0, 0.0]]


def items(pixels: Tensor) -> list[dict]:
    return [{"pixel_values": image, "labels": i} for i, image in enumerate(pixels)]


def test_training_items_are_augmented_and_others_are_not():
    pixels, wanted = batch(4), Pixels()
    collate = ImageCollator(wanted, seed=0)
    train, again = collate(items(pixels)), collate(items(pixels))
    assert torch.equal(train["pixel_values"], again["pixel_values"]) and train["labels"].tolist() == [0, 1, 2, 3]
    draws = draws_for(pixels, 0)
    assert torch.equal(train["pixel_values"], cut_out(wanted.normalised(crop_and_flip(pixels, draws)), draws))
    scored = collate(items(wanted.normalised(pixels)))
    assert torch.equal(scored["pixel_values"], wanted.normalised(pixels))


def test_size_and_type_of_the_model():
    pixels = Pixels(size=(48, 64))
    collate = ImageCollator(pixels, seed=0, dtype=torch.bfloat16)
    for kind in (batch(2), pixels.normalised(batch(2))):
        found = collate(items(kind))["pixel_values"]
        assert found.shape == (2, 3, 48, 64) and found.dtype == torch.bfloat16


def test_kinds_in_one_batch_are_refused():
    mixed = items(batch(1)) + items(Pixels().normalised(batch(1)))
    with pytest.raises(ValueError, match="one kind"):
        ImageCollator(Pixels(), seed=0)(mixed)
