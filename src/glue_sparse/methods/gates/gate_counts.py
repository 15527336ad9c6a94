"""How many entries gates let through: the expected number, which diff pruning penalises, and counts to look at."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from glue_sparse.methods.gates.fused import Passes, added, in_rows, passes
from glue_sparse.methods.gates.gates import GatedDiff, gated_tensors
from glue_sparse.methods.gates.hard_concrete import HardConcrete
from glue_sparse.methods.gates.parts import by_parts


class _OpenCount(torch.autograd.Function):
    """Sum of P(z > 0) over a tensor's gates; saves the logits and nothing else."""

    @staticmethod
    def forward(ctx, alpha: Tensor, concrete: HardConcrete, fused: Passes | None) -> Tensor:
        ctx.save_for_backward(alpha)
        ctx.concrete, ctx.fused = concrete, fused
        if fused is not None:
            return added(fused.count(*in_rows(alpha)))
        sums = by_parts(lambda start, a: concrete.open_probability(a).sum().double(), alpha)
        return torch.stack(sums).sum()

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (alpha,) = ctx.saved_tensors
        given = grad_outputs[0].to(alpha.dtype)
        if ctx.fused is not None:
            return ctx.fused.count_backward(*in_rows(alpha), given).view(alpha.shape), None, None
        gradient = torch.empty_like(alpha)
        by_parts(lambda start, a, out: torch.mul(ctx.concrete.open_slope(a), given, out=out), alpha, gradient)
        return gradient, None, None


def expected_open(gates: GatedDiff, *, additive: bool = False) -> Tensor:
    """Expected number of entries that a tensor's gates let through: a float64 scalar with a gradient.

    sum_i P(z_i > 0) P(z_group > 0), both gates open (Guo et al., 2021, section 3.2). `additive` leaves the group out;
    the authors' code adds P(z_group > 0) once per group instead.
    """
    fused = passes(gates.concrete, gates.alpha, gates.drawn())
    count = _OpenCount.apply(gates.alpha, gates.concrete, fused)
    if gates.group is None or additive:
        return count
    return count * gates.concrete.open_probability(gates.group.alpha).squeeze().double()


@dataclass(frozen=True)
class GateReport:
    """What the gates of a model do at one moment."""

    num_gates: int
    expected: float
    """Expected number of entries let through."""
    open: int
    """Entries that deterministic gates let through."""
    histogram: tuple[int, ...]
    """Entries by their deterministic gate z z_group: exactly 0, ten bins between, exactly 1."""

    @property
    def expected_density(self) -> float:
        """Expected share of gated entries let through."""
        return self.expected / max(1, self.num_gates)

    @property
    def density(self) -> float:
        """Share of gated entries that deterministic gates let through."""
        return self.open / max(1, self.num_gates)


@torch.no_grad()
def report(model: nn.Module) -> GateReport:
    """Count what the gates of a model do now, apart from any sample."""
    total, expected, counts = 0, 0.0, torch.zeros(12, dtype=torch.int64)
    for _, gates in gated_tensors(model):
        total += gates.alpha.numel()
        expected += float(expected_open(gates))
        z_group, _ = gates.group_gate(None)
        for part_counts in by_parts(partial(_histogram, gates, z_group), gates.alpha):
            counts += part_counts.cpu()
    return GateReport(total, expected, int(counts[1:].sum()), tuple(counts.tolist()))


def _histogram(gates: GatedDiff, z_group: Tensor, start: int, alpha: Tensor) -> Tensor:
    """[12] entries of a part in each bin of `GateReport.histogram`."""
    z = gates.concrete.gate(alpha).mul_(z_group)
    bins = torch.where(z > 0, torch.where(z < 1, (z * 10).long().clamp_(max=9) + 1, 11), 0)
    return torch.bincount(bins, minlength=12)
