"""Stochastic rounding to bfloat16: to one of the two nearest numbers, so that the mean is right."""

import torch
from torch import Tensor

_LOW = 1 << 16
"""bfloat16 is float32 without its 16 lowest bits."""


def stochastically(numbers: Tensor, generator: torch.Generator) -> Tensor:
    """float32 numbers as bfloat16, up or down with the probability that makes the mean right (Gupta et al., 2015).

    arXiv 1502.02551, section 3. Numbers that are not finite, and those that would be rounded to infinity, are rounded
    as ever.

    Args:
        numbers: any shape.
        generator: on their device, or on the CPU.
    """
    noise = torch.randint(0, _LOW, numbers.shape, dtype=torch.int32, device=generator.device, generator=generator)
    bits = numbers.contiguous().view(torch.int32) + noise.to(numbers.device)
    rounded = (bits & -_LOW).view(torch.float32)
    return torch.where(numbers.isfinite() & rounded.isfinite(), rounded, numbers).to(torch.bfloat16)
