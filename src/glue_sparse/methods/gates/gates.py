"""Gated diffs (diff pruning, stage 1): weights w0 + z * z_group * d whose gates learn to close."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glue_sparse.core.active import active_tensors, attach
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.parametrization import Parametrization, held_tensors, install, original, read_entries, release
from glue_sparse.core.randomness import seed_of
from glue_sparse.methods.gates.hard_concrete import HardConcrete

_CHUNK = 1 << 16
"""Entries worked on at a time on a CPU: what a core's cache holds, so that no dense intermediate is ever formed."""


@dataclass
class Draw:
    """Which sample the gates of a model show: noise is a function of (seed, step, name of the gates)."""

    seed: int = 0
    step: int = 0
    in_eval: bool = False
    """Show the sample in eval mode too, as the authors' code does, instead of deterministic gates."""


class _Noise:
    """Logistic noise of one tensor's gates, made anew wherever it is needed instead of being kept."""

    def __init__(self, concrete: HardConcrete, device: torch.device, seed: int):
        self.concrete = concrete
        self.generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, like: Tensor) -> Tensor:
        """The next numbers of the sequence, as many as `like` has."""
        return self.concrete.logistic(torch.rand(like.shape, generator=self.generator, device=like.device))


class _Apply(torch.autograd.Function):
    """w0 + z * z_group * d, chunk by chunk; saves its inputs and no dense intermediate (Guo et al., 2021, eq. 5)."""

    @staticmethod
    def forward(ctx, diff: Tensor, alpha: Tensor, group: Tensor | None, weight: Tensor, gates: "GatedDiff") -> Tensor:
        ctx.save_for_backward(diff, alpha, group)
        ctx.gates, ctx.draw = gates, gates.drawn()
        if gates.is_closed(ctx.draw):
            return weight.view_as(weight)
        theta = torch.empty_like(weight)
        out, base = theta.view(-1), weight.view(-1)
        for part, change in gates.changes(ctx.draw):
            out[part] = change.add_(base[part])
        return theta

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        diff, alpha, group = ctx.saved_tensors
        gates, concrete = ctx.gates, ctx.gates.concrete
        if gates.is_closed(ctx.draw):
            return torch.zeros_like(diff), torch.zeros_like(alpha), torch.zeros_like(group), None, None
        noise = gates.noise(ctx.draw)
        z_group, group_slope = gates.group_gate(ctx.draw)
        grad_diff, grad_alpha = torch.empty_like(diff), torch.empty_like(alpha)
        d, a, to_diff, to_alpha = (t.view(-1) for t in (diff, alpha, grad_diff, grad_alpha))
        g = grad_outputs[0].to_dense() if grad_outputs[0].is_sparse else grad_outputs[0]
        g = g.reshape(-1)
        to_group = torch.zeros((), dtype=torch.float64, device=diff.device)
        for part in chunks(d):
            z, slope = concrete.gate_and_slope(a[part], noise and noise(a[part]))
            chunk = g[part].to(diff.dtype)
            torch.mul(chunk, z, out=to_diff[part])
            if group is not None:
                to_group += torch.dot(to_diff[part], d[part])
                to_diff[part].mul_(z_group)
            torch.mul(chunk, slope.mul_(d[part]), out=to_alpha[part]).mul_(z_group)
        grad_group = None if group is None else (to_group * group_slope).to(group.dtype).view_as(group)
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
        return _Apply.apply(self.diff, self.alpha, self.group.alpha if self.group else None, weight, self)

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
        change = torch.empty_like(self.diff).view(-1)
        for part, piece in self.changes(self.drawn()):
            change[part] = piece
        return change

    def drawn(self) -> tuple[int, int] | None:
        """(seed, step) of the sample that the gates show now; none for deterministic gates."""
        return (self.draw.seed, self.draw.step) if self.training or self.draw.in_eval else None

    def noise(self, draw: tuple[int, int] | None) -> _Noise | None:
        """The noise of a sample, from its beginning."""
        return draw and _Noise(self.concrete, self.alpha.device, seed_of(draw[0], "gates", draw[1], self.name))

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

    def changes(self, draw: tuple[int, int] | None) -> Iterator[tuple[slice, Tensor]]:
        """(part, z * z_group * d of that part) over the flat entries."""
        noise, (z_group, _) = self.noise(draw), self.group_gate(draw)
        d, a = self.diff.detach().view(-1), self.alpha.detach().view(-1)
        for part in chunks(d):
            yield part, self.concrete.gate(a[part], noise and noise(a[part])).mul_(d[part]).mul_(z_group)

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
        seed = draw and seed_of(draw[0], "group gate", draw[1], self.name)
        noise = None if seed is None else _Noise(concrete, alpha.device, seed)(alpha)
        z, slope = concrete.gate_and_slope(alpha, noise)
        return z.squeeze(), slope.squeeze()


def chunks(flat: Tensor) -> Iterator[slice]:
    """Parts of a flat tensor to work on one after another; on an accelerator a single one."""
    size = _CHUNK if flat.device.type == "cpu" else max(1, flat.numel())
    return (slice(start, start + size) for start in range(0, flat.numel(), size))


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
