"""Hard-concrete gates (Louizos et al., 2018, arXiv 1712.01312): random numbers in [0, 1], often exactly 0 or 1."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from glue_sparse.writing import bounds

MARGIN = 1e-4
"""Uniform numbers are clamped to [margin, 1 - margin], as in diff pruning's code."""


@dataclass(frozen=True)
class HardConcrete:
    """The distribution of a gate z given its logit alpha: a stretched, clamped sigmoid of alpha plus logistic noise.

    s = sigmoid((log u - log(1 - u) + alpha) / temperature), z = min(1, max(0, s (upper - lower) + lower)), u uniform.

    Attributes:
        lower, upper: the sigmoid is stretched to this interval; diff pruning uses -1.5 and 1.5.
        temperature: of the sigmoid; diff pruning uses 1.
    Raises:
        ValueError: not lower <= 0, upper >= 1 and temperature > 0.
    """

    lower: float = -1.5
    upper: float = 1.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (self.lower <= 0 and self.upper >= 1):
            found = f"{self.lower} and {self.upper}"
            raise ValueError(f"gates reach 0 and 1 with `concrete_lower` <= 0 and `concrete_upper` >= 1, not {found}")
        for name, end in (("concrete_lower", self.lower), ("concrete_upper", self.upper)):
            bounds.check(name, end, bounds.FINITE)
        bounds.check("temperature", self.temperature, bounds.POSITIVE)

    def logistic(self, u: Tensor) -> Tensor:
        """Logistic noise log u - log(1 - u) from uniform numbers, which are overwritten."""
        return u.logit_(MARGIN)

    def gate(self, alpha: Tensor, noise: Tensor | None = None) -> Tensor:
        """z of each logit; without noise the deterministic gate, that of u = 1/2 at temperature 1."""
        return self._stretched(self._sigmoid(alpha, noise)).clamp_(0, 1)

    def gate_and_slope(self, alpha: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(z, dz/dalpha) of each logit; the slope is 0 where z is clamped."""
        return self.gate_and_gradient(alpha, torch.ones_like(alpha), noise)

    def gate_and_gradient(self, alpha: Tensor, gradient: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """(z, gradient by alpha) of each logit, given the gradient by z."""
        s = self._sigmoid(alpha, noise)
        stretched = self._stretched(s)
        inside = torch.ops.aten.hardtanh_backward(gradient, stretched, 0, 1)
        slopes = torch.ops.aten.sigmoid_backward(inside, s)
        temperature = 1.0 if noise is None else self.temperature
        return stretched.clamp_(0, 1), slopes.mul_((self.upper - self.lower) / temperature)

    def open_probability(self, alpha: Tensor) -> Tensor:
        """P(z > 0) = sigmoid(alpha - temperature log(-lower / upper)); 1 for lower = 0, where no gate can close."""
        return torch.ones_like(alpha) if self.lower == 0 else (alpha - self._offset).sigmoid_()

    def open_slope(self, alpha: Tensor) -> Tensor:
        """Derivative of `open_probability` by alpha, exact for large |alpha| too, where 1 - p rounds to 0."""
        if self.lower == 0:
            return torch.zeros_like(alpha)
        e = (alpha - self._offset).abs_().neg_().exp_()  # p (1 - p) = e / (1 + e)^2, where nothing is lost
        return (e + 1).square_().reciprocal_().mul_(e)

    @property
    def _offset(self) -> float:
        return self.temperature * math.log(-self.lower / self.upper)

    def _sigmoid(self, alpha: Tensor, noise: Tensor | None) -> Tensor:
        if noise is None:
            return torch.sigmoid(alpha)
        logits = torch.add(alpha, noise)
        return (logits if self.temperature == 1 else logits.div_(self.temperature)).sigmoid_()

    def _stretched(self, s: Tensor) -> Tensor:
        return s.mul(self.upper - self.lower).add_(self.lower)
