"""Images as tensors: augmentation, normalisation and size, for a whole batch at once."""

import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glue_sparse.core.randomness import seeded
from glue_sparse.models.pixels import Pixels

PADDING = 4
CUTOUT = 8


@dataclass(frozen=True)
class Draws:
    """The random numbers of an augmentation, one per image: [n] each."""

    top: Tensor
    """First row of the crop in the padded image."""
    left: Tensor
    flip: Tensor
    """Whether the crop is mirrored."""
    cut_top: Tensor
    """First row of the box that is cut out of what is left."""
    cut_left: Tensor


def draws_for(pixels: Tensor, seed: int) -> Draws:
    """Random numbers for a batch of uint8 images [n, 3, h, w], h and w at least 8.

    They are a function of the seed and of the batch's bytes alone. So neither the number of loader workers nor a
    resumption changes them, and no random state has to be saved; an image gets other numbers in each epoch because the
    other images in its batch, and their order, are others. A batch of one image has the same numbers in each epoch.
    """
    height, width = pixels.shape[-2:]
    generator = seeded(seed, "augment", zlib.crc32(pixels.contiguous().numpy().data))

    def below(limit: int) -> Tensor:
        return torch.randint(limit, (len(pixels),), generator=generator)

    return Draws(
        top=below(2 * PADDING + 1),
        left=below(2 * PADDING + 1),
        flip=below(2).bool(),
        cut_top=below(height - CUTOUT + 1),
        cut_left=below(width - CUTOUT + 1),
    )


def crop_and_flip(pixels: Tensor, draws: Draws) -> Tensor:
    """A crop of the image's own size out of the image padded by 4 mirrored pixels, some mirrored: [n, 3, h, w]."""
    count, channels, height, width = pixels.shape
    rows = _reflected(draws.top[:, None] + torch.arange(height) - PADDING, height)
    columns = _reflected(draws.left[:, None] + torch.arange(width) - PADDING, width)
    columns = torch.where(draws.flip[:, None], columns.flip(1), columns)
    images = torch.arange(count).view(-1, 1, 1, 1)
    channel = torch.arange(channels).view(1, -1, 1, 1)
    return pixels[images, channel, rows[:, None, :, None], columns[:, None, None, :]]


def cut_out(pixels: Tensor, draws: Draws) -> Tensor:
    """Zero an 8x8 box of each image (DeVries and Taylor, 2017, arXiv 1708.04552): [n, 3, h, w]."""
    rows = torch.arange(pixels.shape[-2]) - draws.cut_top[:, None]
    columns = torch.arange(pixels.shape[-1]) - draws.cut_left[:, None]
    inside = _in_box(rows)[:, :, None] & _in_box(columns)[:, None, :]
    return pixels.masked_fill(inside[:, None], 0)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Places outside an axis of `size` pixels, mirrored at its ends without repeating the last pixel."""
    last = size - 1
    return last - (last - places.abs()).abs()


def _in_box(places: Tensor) -> Tensor:
    return (places >= 0) & (places < CUTOUT)


@dataclass(frozen=True)
class ImageCollator:
    """Items to a batch for the model, `pixel_values` [n, 3, h, w] and `labels` [n].

    Training items are uint8 and are augmented; items to score are float32, normalised already. The type tells them
    apart because the Trainer takes away whatever else an item says.
    """

    pixels: Pixels
    seed: int
    dtype: torch.dtype = torch.float32

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Raises ValueError for items to train on and to score in one batch."""
        if len({item["pixel_values"].dtype for item in items}) > 1:
            raise ValueError("a batch holds images to train on and images to score; give the model one kind")
        pixels = torch.stack([item["pixel_values"] for item in items])
        if pixels.dtype == torch.uint8:
            draws = draws_for(pixels, self.seed)
            # the box is cut after normalisation, so that it has the mean colour
            pixels = cut_out(self.pixels.normalised(crop_and_flip(pixels, draws)), draws)
        labels = torch.tensor([item["labels"] for item in items])
        return {"pixel_values": self.pixels.resized(pixels).to(self.dtype), "labels": labels}
