"""Gated weights w + z * z_group * d in one launch, and their gradients in another; noise is made where it is used."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glue_sparse.kernels import backend

Keys = tuple[int, int]
"""Two signed 32-bit integers, which decide a tensor's uniform numbers."""
EXACT = {"enable_fp_fusion": False}
"""Products are rounded before they are added, so that a gated weight is the weight plus `change`, to the bit."""
_BLOCK = 1024


def takes(diff: Tensor, alpha: Tensor, group: Tensor | None, weight: Tensor) -> bool:
    """Whether kernels form this gated weight: [n] or any other shape, of one layout, float32 diffs and logits."""
    logits = [alpha] if group is None else [alpha, group]
    are_flat = all(one.layout == torch.strided and one.is_contiguous() for one in (diff, weight, *logits))
    are_there = all(one.device == weight.device for one in (diff, *logits))
    is_fit = are_flat and are_there and all(one.dtype == torch.float32 for one in (diff, *logits))
    return is_fit and diff.shape == alpha.shape == weight.shape and backend.available(weight.device, weight.dtype)


@dataclass(frozen=True)
class Gates:
    """Hard-concrete gates of a tensor (Louizos et al., 2018), as plain numbers.

    z = min(1, max(0, s (upper - lower) + lower)), s = sigmoid((log u - log(1 - u) + alpha) / temperature); without
    keys the deterministic gate, s = sigmoid(alpha). The same for the group's gate.

    Attributes:
        margin: u is clamped to [margin, 1 - margin].
        keys: (those of the tensor's numbers, those of the group's, any where there is none).
    """

    lower: float
    upper: float
    temperature: float
    margin: float
    keys: tuple[Keys, Keys] | None

    def weight(self, diff: Tensor, alpha: Tensor, group: Tensor | None, weight: Tensor) -> Tensor:
        """weight + z * z_group * diff, rounded once to the weight's type; group: [1] logit of the group's gate."""
        return self._gated(torch.empty_like(weight), diff, alpha, group, weight)

    def change(self, diff: Tensor, alpha: Tensor, group: Tensor | None) -> Tensor:
        """z * z_group * diff, float32 of the same shape."""
        return self._gated(torch.empty_like(diff), diff, alpha, group, None)

    def _gated(self, out: Tensor, diff: Tensor, alpha: Tensor, group: Tensor | None, weight: Tensor | None) -> Tensor:
        self._launch("gated", group, out, out if weight is None else weight, diff, alpha, HAS_WEIGHT=weight is not None)
        return out

    def gradients(
        self, grad: Tensor, diff: Tensor, alpha: Tensor, group: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients by diff, alpha and group, each of its shape, from that by the weight.

        Programs leave their shares of the group's, float32, which are then summed in float64: without atomics, so that
        the same bits come out each time.
        """
        to_diff, to_alpha = torch.empty_like(diff), torch.empty_like(alpha)
        shares = diff.new_empty(backend.ceil(diff.numel(), _BLOCK) if group is not None else 0)
        self._launch("gate_gradients", group, grad.contiguous(), to_diff, to_alpha, shares, diff, alpha)
        to_group = None if group is None else shares.sum(dtype=torch.float64).to(group.dtype).view_as(group)
        return to_diff, to_alpha, to_group

    def _launch(self, name: str, group: Tensor | None, *tensors: Tensor, **constants: Any) -> None:
        """`tensors` end with alpha, which stands for the group's logit where there is none."""
        if not (count := tensors[-1].numel()):
            return
        (first, second), (group_first, group_second) = self.keys or ((0, 0), (0, 0))
        backend.launch(
            getattr(backend.code("gates"), name), (backend.ceil(count, _BLOCK),), *tensors,
            tensors[-1] if group is None else group, first, second, group_first, group_second, count,
            HAS_GROUP=group is not None, HAS_NOISE=self.keys is not None, LOWER=self.lower,
            WIDTH=self.upper - self.lower, TEMPERATURE=self.temperature if self.keys else 1.0, MARGIN=self.margin,
            BLOCK=_BLOCK, **constants, **EXACT,
        )  # fmt: skip
