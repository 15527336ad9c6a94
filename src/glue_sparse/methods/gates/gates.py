"""Gated diffs (diff pruning, stage 1): weights w0 + z * z_group * d whose gates learn to close."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glue_sparse.core.active import active_tensors, attach
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.parametrization import Parametrization, held_tensors, install, original, read_entries, release
from glue_sparse.kernels.gates import Gates, takes
from glue_sparse.methods.gates.fused import Keys, added, in_rows, passes
from glue_sparse.methods.gates.hard_concrete import MARGIN, HardConcrete
from glue_sparse.methods.gates.noise import Noise, keys_of
from glue_sparse.methods.gates.parts import by_parts, chunk


@dataclass
class Draw:
    """Which sample the gates of a model show: noise is a function of (seed, step, name of the gates)."""

    seed: int = 0
    step: int = 0
    in_eval: bool = False
    """Show the sample in eval mode too, as the authors' code does, instead of deterministic gates."""


class _Apply(torch.autograd.Function):
    """w0 + z * z_group * d (Guo et al., 2021, eq. 5), by a kernel or part by part; saves its inputs alone."""

    @staticmethod
    def forward(ctx, diff: Tensor, alpha: Tensor, group: Tensor | None, weight: Tensor, gates: "GatedDiff") -> Tensor:
        ctx.save_for_backward(diff, alpha, group)
        ctx.gates, ctx.draw = gates, gates.drawn()
        if gates.is_closed(ctx.draw):
            return weight.view_as(weight)
        ctx.kernels = gates.kernels(ctx.draw, diff, alpha, group, weight)
        if ctx.kernels:
            return ctx.kernels.weight(diff, alpha, group, weight)
        if (fused := passes(gates.concrete, diff, ctx.draw)) is not None:
            return fused.forward(*in_rows(diff, alpha, weight), *gates.fused_by(ctx.draw)).view(weight.shape)
        theta = torch.empty_like(weight)
        change = gates.changing(ctx.draw)

        def fill(start: int, d: Tensor, a: Tensor, base: Tensor, out: Tensor) -> None:
            torch.add(base, change(start, d, a), out=out)

        by_parts(fill, diff, alpha, weight, theta)
        return theta

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        diff, alpha, group = ctx.saved_tensors
        gates, concrete = ctx.gates, ctx.gates.concrete
        if gates.is_closed(ctx.draw):
            return torch.zeros_like(diff), torch.zeros_like(alpha), torch.zeros_like(group), None, None
        g = grad_outputs[0].to_dense() if grad_outputs[0].is_sparse else grad_outputs[0]
        if ctx.kernels:
            return *ctx.kernels.gradients(g, diff, alpha, group), None, None
        z_group, group_slope = gates.group_gate(ctx.draw)
        if (fused := passes(concrete, diff, ctx.draw)) is not None:
            to_diff, to_alpha, shares = fused.backward(*in_rows(g, diff, alpha), *gates.fused_by(ctx.draw))
            to_group = None if group is None else (added(shares) * group_slope).to(group.dtype).view_as(group)
            return to_diff.view(diff.shape), to_alpha.view(diff.shape), to_group, None, None
        noise = gates.noise(ctx.draw)
        grad_diff, grad_alpha = torch.empty_like(diff), torch.empty_like(alpha)

        def fill(start: int, g: Tensor, d: Tensor, a: Tensor, to_diff: Tensor, to_alpha: Tensor) -> Tensor | None:
            """Write the gradients of a part, and return its share of that of the group's gate."""
            g = g.to(d.dtype)
            by_gate = g * d
            z, by_alpha = concrete.gate_and_gradient(a, by_gate, noise and noise(start, len(a)))
            if group is None:
                torch.mul(g, z, out=to_diff)
                to_alpha.copy_(by_alpha)
                return None
            torch.mul(g, z_group, out=to_diff).mul_(z)
            torch.mul(by_alpha, z_group, out=to_alpha)
            return torch.dot(by_gate, z).double()

        found = by_parts(fill, g.contiguous(), diff, alpha, grad_diff, grad_alpha)
        if group is None:
            return grad_diff, grad_alpha, None, None, None
        shares = torch.stack([share for share in found if share is not None])
        grad_group = (shares.sum() * group_slope).to(group.dtype).view_as(group)
        return grad_diff, grad_alpha, grad_group, None, None


class GatedDiff(Parametrization):
    """Parametrization w0 + z * z_group * d of one tensor, with a gate z for each entry and one for its group.

    Everything it adds to a model is `diff`, `alpha` and, with Adam, four moments: 6 float32 numbers per entry.

    Attributes:
        diff: d, float32 parameter of the tensor's shape, starts at zero.
        alpha: logits of the gates, float32 parameter of the tensor's shape.
        group: logit of the group's gate, shared by its tensors; none for unstructured gates.
        draw: which noise the gates show; shared by all tensors of a model.
    """

    def __init__(
        self,
        weight: Tensor,
        name: str,
        concrete: HardConcrete,
        draw: Draw,
        alpha_init: float,
        group: "GroupGate | None",
    ):
        super().__init__()
        self.base_digest = tensor_digest(weight)
        self.name, self.concrete, self.draw = name, concrete, draw
        self.diff = nn.Parameter(torch.zeros_like(weight, dtype=torch.float32))
        self.alpha = nn.Parameter(torch.full_like(weight, alpha_init, dtype=torch.float32))
        self.group = group

    def forward(self, weight: Tensor) -> Tensor:
        """The gated weight, of the same shape and type as `weight`, which stays as it is."""
        return _Apply.apply(*self._trained(), weight, self)

    def _trained(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.diff, self.alpha, self.group.alpha if self.group else None

    @property
    def num_active(self) -> int:
        """See `Parametrization.num_active`: all of them, while gates are learnt."""
        return self.diff.numel()

    @torch.no_grad()
    def current(self, weight: Tensor) -> Tensor:
        """See `Parametrization.current`."""
        return self.forward(weight)

    @torch.no_grad()
    def change(self) -> Tensor:
        """z * z_group * d, flat float32: what the gates let through now."""
        if kernels := self.kernels(self.drawn(), *self._trained(), self.diff):
            return kernels.change(*self._trained()).view(-1)
        whole, change = torch.empty_like(self.diff), self.changing(self.drawn())
        by_parts(lambda start, d, a, out: out.copy_(change(start, d, a)), self.diff, self.alpha, whole)
        return whole.view(-1)

    def drawn(self) -> tuple[int, int] | None:
        """(seed, step) of the sample that the gates show now; none for deterministic gates."""
        return (self.draw.seed, self.draw.step) if self.training or self.draw.in_eval else None

    def kernels(
        self, draw: tuple[int, int] | None, diff: Tensor, alpha: Tensor, group: Tensor | None, weight: Tensor
    ) -> Gates | None:
        """The gates of a sample as kernels take them; none where these tensors are left to torch."""
        if not takes(diff, alpha, group, weight):
            return None
        keys = draw and (keys_of(*_entries_key(draw, self.name)), keys_of(*_group_key(draw, self.group)))
        return Gates(self.concrete.lower, self.concrete.upper, self.concrete.temperature, MARGIN, keys)

    def noise(self, draw: tuple[int, int] | None) -> Callable[[int, int], Tensor] | None:
        """Logistic noise of a sample for (first of the flat entries, number of entries)."""
        if draw is None:
            return None
        longest, device = min(chunk(self.alpha), self.alpha.numel()), self.alpha.device
        uniform = Noise(*_entries_key(draw, self.name), longest=longest, device=device)
        return lambda start, count: self.concrete.logistic(uniform(start, count))

    def fused_by(self, draw: tuple[int, int] | None) -> tuple[Keys, Tensor | None]:
        """What fused passes need of a sample: the keys of its noise, and the group's gate."""
        assert draw is not None  # deterministic gates are worked on piece by piece
        return Keys.of(*_entries_key(draw, self.name)), None if self.group is None else self.group_gate(draw)[0]

    def group_gate(self, draw: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        """(gate, slope) of the group: scalars, (1, 0) where there is no group."""
        if self.group is None:
            return torch.ones((), device=self.alpha.device), torch.zeros((), device=self.alpha.device)
        return self.group.gate_and_slope(self.concrete, draw)

    def is_closed(self, draw: tuple[int, int] | None) -> bool:
        """Whether the group's gate is shut, so that nothing passes and there is nothing to compute.

        Asked on a CPU only: an accelerator would have to wait for the answer.
        """
        return self.group is not None and self.alpha.device.type == "cpu" and not self.group_gate(draw)[0]

    def changing(self, draw: tuple[int, int] | None) -> Callable[[int, Tensor, Tensor], Tensor]:
        """z * z_group * d of a part, given (its first flat entry, its d, its alpha)."""
        noise, (z_group, _) = self.noise(draw), self.group_gate(draw)

        def change(start: int, d: Tensor, a: Tensor) -> Tensor:
            z = self.concrete.gate(a, noise and noise(start, len(a)))
            return (z if self.group is None else z.mul_(z_group)).mul_(d)

        return change

    def extra_repr(self) -> str:
        return f"{self.diff.numel():,} gates{', grouped' if self.group else ''}"


class GroupGate(nn.Module):
    """The gate that a group of tensors shares.

    Attributes:
        alpha: its logit, a float32 parameter of shape [1].
        name: of the group; decides its noise.
    """

    def __init__(self, name: str, alpha_init: float, device: torch.device):
        super().__init__()
        self.name = name
        self.alpha = nn.Parameter(torch.full((1,), alpha_init, device=device))

    def gate_and_slope(self, concrete: HardConcrete, draw: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        """(z, dz/dalpha), scalars."""
        alpha = self.alpha.detach()
        noise = None
        if draw is not None:
            uniform = Noise(*_group_key(draw, self), longest=1, device=alpha.device)
            noise = concrete.logistic(uniform(0, 1))
        z, slope = concrete.gate_and_slope(alpha, noise)
        return z.squeeze(), slope.squeeze()


def _entries_key(draw: tuple[int, int], name: str) -> tuple[int, str, int, str]:
    """What decides the noise of a tensor's gates: `Noise`'s seed and keys."""
    return draw[0], "gates", draw[1], name


def _group_key(draw: tuple[int, int], group: GroupGate | None) -> tuple[int, str, int, str]:
    return draw[0], "group gate", draw[1], group.name if group else ""


def attach_gates(
    model: nn.Module,
    names: tuple[str, ...],
    *,
    groups: Mapping[str, str] | None = None,
    concrete: HardConcrete | None = None,
    alpha_init: float = 5.0,
    draw: Draw | None = None,
) -> None:
    """Put gated diffs on the named tensors of a model; all others stay as they are.

    Args:
        groups: tensor name -> group; tensors of a group share one more gate. None: no such gates.
        draw: shared by all gates; set its `step` before each optimizer step.
    """
    concrete, draw, made = concrete or HardConcrete(), draw or Draw(), {}
    parameters = dict(model.named_parameters())
    for name in names:
        group = (groups or {}).get(name)
        if group is not None and group not in made:
            made[group] = GroupGate(group, alpha_init, parameters[name].device)

    def builder(name: str, group: GroupGate | None):
        return lambda weight: GatedDiff(weight, name, concrete, draw, alpha_init, group)

    install(model, {name: builder(name, made.get((groups or {}).get(name, ""))) for name in names})


def gated_tensors(model: nn.Module) -> Iterator[tuple[str, GatedDiff]]:
    """(original parameter name, its gated diff), in model order, tied tensors once."""
    return ((name, held) for name, held in held_tensors(model) if isinstance(held, GatedDiff))


@torch.no_grad()
def collapse(model: nn.Module) -> None:
    """Turn gated diffs into active entries: those that the gates let through now, with the values they have.

    Everything else is the pretrained model again, bit for bit; the gates are gone.
    """
    masks, values = {}, {}
    for name, held in list(held_tensors(model)):
        weight = original(model, name)
        masks[name] = torch.zeros(weight.shape, dtype=torch.bool, device=weight.device)
        if isinstance(held, GatedDiff):
            change = held.change()
            found = change.nonzero().squeeze(1)
            masks[name].view(-1)[found] = True
            values[name] = change[found].add_(read_entries(weight, found))
    release(model)
    attach(model, masks)
    for name, entries in active_tensors(model):
        if name in values:
            entries.values.data.copy_(values[name])
            entries.fold()
