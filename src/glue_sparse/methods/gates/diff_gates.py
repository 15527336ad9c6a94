"""Diff pruning, stage 1 (Guo, Rush and Kim, 2021, arXiv 2012.07463): learn which entries of a diff are worth having."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from glue_sparse.core.active import attach
from glue_sparse.core.masks import Masks
from glue_sparse.core.parametrization import is_attached, persistent_buffers, release, wholly_active
from glue_sparse.core.params import body_names, layer_numbers, num_blocks, trainable_names
from glue_sparse.costs.formulas import Rule
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.methods.base import Batches, Combine, Moment, SparseMethod, alone
from glue_sparse.methods.gates.gate_counts import expected_open, report
from glue_sparse.methods.gates.gate_file import GateFile
from glue_sparse.methods.gates.gates import Draw, GroupGate, attach_gates, collapse, gated_tensors
from glue_sparse.methods.gates.hard_concrete import HardConcrete
from glue_sparse.writing import bounds

Groups = Literal["tensor", "layer", "none"]


class DiffGates(SparseMethod):
    """Weights w0 + z * z_group * d with gates z that a penalty on their expected number closes: diff pruning, stage 1.

    Guo, Rush and Kim, 2021, arXiv 2012.07463, section 3; gates of Louizos et al., 2018, arXiv 1712.01312.

    Training the gates is the purpose of the run: at its end the entries that deterministic gates let through become
    its sparse diff, usually far more than a task should store. Prune that diff, then train on with its mask fixed.

    Args:
        penalty: added to the loss for each entry expected to be let through; one number, or one per layer: embeddings,
            every block, the rest.
        groups: entries that share a second gate: those of each `tensor` (structured), of each `layer`, or `none`.
        fix_layer: layers whose weights stay as they are, numbered as for `penalty`.
        concrete: the gates' distribution.
        alpha_init: initial logit of every gate.
        gate_learning_rate: of the gates' logits.
        gate_schedule: `constant` keeps that rate to the end, `weights` lets it decay as that of the weights.
        gate_eps: Adam's epsilon for the gates. It decides how fast gates close on which the penalty alone acts, since
            their gradients are about as small.
        as_released: do what the authors' code does where it differs from the paper: the last training step's sample of
            the gates is evaluated, saved and pruned instead of deterministic gates; a group is penalised like a
            single entry instead of with all of its entries.
        seed: of the gates' noise.
    Raises:
        ValueError: a penalty below 0.
    """

    refuses_again = ("the gates became active entries when training ended: train these on with "
                     "FixedMask(start=trainer.sparse_diff()), on the base model")  # fmt: skip
    refuses_merging = "gates cannot be learnt by workers that merge, which send active entries alone"

    def __init__(
        self,
        *,
        penalty: float | Sequence[float] = 1.25e-7,
        groups: Groups = "tensor",
        fix_layer: Sequence[int] = (),
        concrete: HardConcrete | None = None,
        alpha_init: float = 5.0,
        gate_learning_rate: float = 0.1,
        gate_schedule: Literal["constant", "weights"] = "constant",
        gate_eps: float = 1e-8,
        as_released: bool = False,
        seed: int = 0,
    ):
        self.penalties = tuple(penalty) if isinstance(penalty, Sequence) else (penalty,)
        if not self.penalties:
            raise ValueError("`penalty` names no number: give one, or one per layer")
        bounds.check("penalty", self.penalties, bounds.NOT_NEGATIVE)
        bounds.check("alpha_init", alpha_init, bounds.FINITE)
        bounds.check("gate_learning_rate", gate_learning_rate, bounds.NOT_NEGATIVE)
        bounds.check("gate_eps", gate_eps, bounds.POSITIVE)
        self.groups, self.fix_layer, self.concrete = groups, tuple(fix_layer), concrete or HardConcrete()
        self.alpha_init, self.as_released = alpha_init, as_released
        self.options = {"lr": gate_learning_rate, "eps": gate_eps, "weight_decay": 0.0, "schedule": gate_schedule,
                        "clipped": "apart"}  # fmt: skip
        self.draw = Draw(seed, in_eval=as_released)
        self.needs_data = False
        self.layers: dict[str, int] = {}

    def prepare(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone
    ) -> Masks:
        """Masks that are all true for tensors with gates and all false for those of fixed layers.

        Raises:
            ValueError: a layer that the model does not have, or another number of penalties than it has layers.
        """
        names, body = trainable_names(model, head), body_names(model, head)
        self.layers = layer_numbers(body)  # frozen layers have their numbers too
        last = num_blocks(body) + 1
        for layer in self.fix_layer:
            if not 0 <= layer <= last:
                raise ValueError(f"`fix_layer` {layer}: this model has layers 0 (embeddings) to {last} (the rest)")
        if len(self.penalties) not in (1, last + 1):
            raise ValueError(f"{len(self.penalties)} penalties do not fit: give one, or {last + 1}, one per layer")
        gated = {name: self.layers[name] not in self.fix_layer for name in names}
        if not any(gated.values()):
            raise ValueError("`fix_layer` fixes every layer that is not frozen, so that nothing is left to learn")
        return {name: torch.full(model.get_parameter(name).shape, on) for name, on in gated.items()}

    def attach(self, model: nn.Module, masks: Masks) -> None:
        """Put gated diffs before tensors whose mask is true; see `SparseMethod.attach`."""
        gated = tuple(name for name, mask in masks.items() if mask.all())
        attach(model, {name: mask for name, mask in masks.items() if name not in set(gated)})
        of_layer = {name: f"layer {self.layers[name]}" for name in gated}
        groups = {"tensor": {name: name for name in gated}, "layer": of_layer, "none": None}[self.groups]
        attach_gates(
            model, gated, groups=groups, concrete=self.concrete, alpha_init=self.alpha_init, draw=self.draw
        )

    def flops_rule(self, num_steps: int, num_epochs: float | None) -> tuple[Rule, int | None]:
        """Every weight trains, whatever the gates leave of it in the end."""
        return "dense", None

    def before_step(self, model: nn.Module, moment: Moment) -> None:
        """A new sample of the gates for each optimizer step, the same for all of its micro-batches and ranks."""
        self.draw.step = moment.step

    def penalty(self, model: nn.Module) -> Tensor | None:
        """lambda times the expected number of entries let through, in each layer (Guo et al., 2021, section 3.2)."""
        terms: list[Tensor] = []
        groups: set[GroupGate] = set()
        for name, gates in gated_tensors(model):
            weight = self.penalties[self.layers[name] if len(self.penalties) > 1 else 0]
            terms.append(weight * expected_open(gates, additive=self.as_released))
            if self.as_released and gates.group is not None and gates.group not in groups:
                groups.add(gates.group)
                terms.append(weight * gates.concrete.open_probability(gates.group.alpha).squeeze().double())
        return torch.stack(terms).sum() if terms else None

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The gates' logits: a rate of their own, no weight decay, which would open and close them by itself."""
        logits = {id(p): p for _, gates in gated_tensors(model) for n, p in gates.named_parameters() if "alpha" in n}
        return [{"params": list(logits.values()), **self.options}] if logits else []

    def logs(self, model: nn.Module) -> dict[str, Any]:
        """Expected and realised density of the gates, their histogram, and the penalty."""
        found = report(model)
        if not found.num_gates:
            return {}
        with torch.no_grad():
            penalty = self.penalty(model)
        histogram = [round(count / found.num_gates, 4) for count in found.histogram]
        return {
            "expected_density": found.expected_density,
            "gate_density": found.density,
            "penalty": 0.0 if penalty is None else penalty.item(),
            "gate_histogram": histogram,
        }

    def finish(self, model: nn.Module, folder: Path | None) -> None:
        """Turn what the gates let through into active entries; as released, save the gates first.

        The authors' third stage starts from w0 + d, which the active entries, w0 + z d, do not tell.
        """
        model.eval()  # deterministic gates, unless as released
        if folder and self.as_released:
            self._state(model).write(folder)
        collapse(model)

    def save(self, model: nn.Module, info: DiffInfo, folder: Path) -> None:
        """Write `gates.safetensors`: all that a resumed run needs beside the optimizer."""
        self._state(model).write(folder)

    def restore(self, model: nn.Module, head: tuple[str, ...], folder: Path) -> None:
        """Continue from what `save` wrote, on a plain model or one that has gates already.

        Raises:
            ValueError: no such file, or one of another base model or other gates; the model is unchanged then.
        """
        saved, was_plain = GateFile.read(folder), not is_attached(model)
        if was_plain:
            self.attach(model, self.prepare(model, head, lambda num_samples: ()))
        state = self._state(model)
        try:
            saved.check_fits(state, folder)
        except ValueError:
            if was_plain:  # gates write nothing before they train
                release(model)
            raise
        for key, tensor in state.tensors.items():
            tensor.data.copy_(saved.tensors[key])
        self.draw.step = saved.step

    def _state(self, model: nn.Module) -> GateFile:
        """The model's own tensors, not copies."""
        tensors = {f"whole/{name}": t for name, t in {**wholly_active(model), **persistent_buffers(model)}.items()}
        digests = {}
        for name, gates in gated_tensors(model):
            digests[name] = gates.base_digest
            tensors |= {f"diff/{name}": gates.diff, f"alpha/{name}": gates.alpha}
            if gates.group is not None:
                tensors[f"group/{gates.group.name}"] = gates.group.alpha
        return GateFile(tensors, digests, self.draw.step, self.as_released)
