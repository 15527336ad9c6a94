"""How a network wants its images."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Pixels:
    """How a network wants its images."""

    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    """Of each channel, on a scale from 0 to 1; by default CIFAR-10's."""
    std: tuple[float, ...] = (0.2471, 0.2435, 0.2616)
    size: tuple[int, int] | None = None
    """Height and width; None leaves images as they are."""

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 [..., 3, h, w] to float32 of mean 0 and standard deviation 1."""
        mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std

    def resized(self, pixels: Tensor) -> Tensor:
        """Float [n, 3, h, w] at the wanted size, bilinear."""
        if self.size is None or tuple(pixels.shape[-2:]) == self.size:
            return pixels
        return F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
