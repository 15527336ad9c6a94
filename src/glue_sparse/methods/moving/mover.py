"""Moves the active entries of a model while it trains, by a rule; the same for a Trainer and for a plain loop."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from glue_sparse.core import budgets, ranks
from glue_sparse.core.active import ActiveEntries, active_tensors, current_masks
from glue_sparse.core.masks import digest
from glue_sparse.core.parametrization import original
from glue_sparse.core.reindexing import reindex
from glue_sparse.core.stored import check_like, check_numbers
from glue_sparse.methods.moving.explored import mean_explored_share
from glue_sparse.methods.moving.history import History
from glue_sparse.methods.moving.rules import Connections, Rule, grown, kept, num_dropped

logger = logging.getLogger(__name__)

MOMENTUM = 0.9
"""Of the mean gradient over steps (Dettmers and Zettlemoyer, 2019)."""
FEW_UPDATES = 10


class Mover:
    """Drops and grows active entries at the steps that a rule's schedule names.

    Call `before_step` before the backward passes of an optimizer step, `gradients_ready` when its gradients are
    complete, and `after_step` when the optimizer has stepped.

    Args:
        num_steps, num_epochs: length of the whole run; epochs are needed only where updates are counted in them.
    """

    def __init__(self, rule: Rule, num_steps: int, seed: int, num_epochs: float | None = None):
        self.rule, self.seed = rule, seed
        self.schedule = rule.schedule.in_steps(num_steps, num_epochs)
        self.momentum: dict[str, Tensor] = {}
        """Mean dense gradients, where the rule wants them."""
        self.history = History(rule.block_size)
        self._is_finite = True
        found = self.schedule.num_updates
        if rule.grow and found < FEW_UPDATES:
            logger.warning(
                "only %d updates of the active entries fit this run of %d steps (every %d, before step %d): "
                "with fewer than %d little is explored; lower update_every",
                found, num_steps, self.schedule.every, self.schedule.until, FEW_UPDATES,
            )  # fmt: skip

    def is_update(self, step: int) -> bool:
        """Whether entries move at this step."""
        return self.rule.grow is not None and self.schedule.is_update(step)

    def before_step(self, model: nn.Module, step: int) -> None:
        """Have dense gradients kept where this step needs them."""
        for _, entries in active_tensors(model):
            entries.watch(self._wants_gradients(step))

    def _wants_gradients(self, step: int) -> bool:
        return self.rule.gradients == "always" or (self.rule.gradients == "at_updates" and self.is_update(step))

    def gradients_ready(self, model: nn.Module, step: int, optimizer: torch.optim.Optimizer) -> bool:
        """Take note of dense gradients; true where entries moved instead of a step, which is then to be left out.

        Raises:
            ValueError: a score that is not finite.
        """
        if self._wants_gradients(step):
            self._average_over_ranks(model)
            self._is_finite = self._check_finite(model, step)
        if self.rule.gradients == "always" and self._is_finite:
            self._follow_momentum(model)
        if not (self.is_update(step) and self._is_finite and self.rule.when == "replace"):
            return False
        self._move(model, step, optimizer)
        return True

    def after_step(self, model: nn.Module, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Move entries after a step, where the rule says so; raises as `gradients_ready`."""
        if self.is_update(step) and self._is_finite and self.rule.when == "after_step":
            self._move(model, step, optimizer)
        if self._wants_gradients(step):
            for _, entries in active_tensors(model):
                entries.watch(False)

    def _average_over_ranks(self, model: nn.Module) -> None:
        if ranks.count() == 1:
            return
        for _, entries in active_tensors(model):
            if entries.is_watched:
                if entries.dense_gradient is None:  # not used on this rank
                    entries.dense_gradient = torch.zeros(entries.shape, device=entries.values.device)
                ranks.average(entries.dense_gradient)

    def _check_finite(self, model: nn.Module, step: int) -> bool:
        """Whether this step's dense gradients can be used; an overflow at inactive entries is seen by nobody else."""
        watched = [entries for _, entries in active_tensors(model) if entries.is_watched]
        seen = [entries.dense_gradient for entries in watched if entries.dense_gradient is not None]
        if watched and not seen and self.is_update(step):
            raise ValueError(f"no gradient reached the sparse tensors in step {step}, where entries grow by it")
        finite = all(bool(torch.isfinite(gradient).all()) for gradient in seen)
        if not finite:
            logger.warning("gradients of step %d are not finite: no entry moves by them", step)
        return finite

    def _follow_momentum(self, model: nn.Module) -> None:
        for name, entries in active_tensors(model):
            if name not in self.momentum:
                self.momentum[name] = torch.zeros(entries.shape, device=entries.values.device)
            mean = self.momentum[name].mul_(MOMENTUM)
            if entries.dense_gradient is not None:
                mean.add_(entries.dense_gradient, alpha=1 - MOMENTUM)

    def _move(self, model: nn.Module, step: int, optimizer: torch.optim.Optimizer) -> None:
        fraction = self.schedule.fraction(step)
        movable = self._movable(model)
        dropped = {name: self._num_dropped(entries, fraction) for name, entries in movable}
        to_grow = self._shares(model, step, dropped)
        for name, entries in movable:  # one at a time: no second dense tensor lives beside the first
            param = self._connections(model, name, entries, step)
            stays = kept(param, self.rule, entries.num_active - dropped[name])
            new = stays | grown(param, self.rule, stays, to_grow[name])
            self.history.moved(name, param.mask, new)
            if self.rule.regrown == "reset":
                reindex(model, {name: stays}, optimizer, self.rule.entrants)
            reindex(model, {name: new}, optimizer, self.rule.entrants)
        self.history.updated(step, fraction, mean_explored_share(model))
        self._check_agreement(model, step)

    def _num_dropped(self, entries: ActiveEntries, fraction: float) -> int:
        found = num_dropped(entries.num_active, fraction, self.rule.block_size)
        if self.rule.regrown == "never":  # as many have to be there that are not active
            found = min(found, entries.shape.numel() - entries.num_active)
        return found

    def _movable(self, model: nn.Module) -> list[tuple[str, ActiveEntries]]:
        """Tensors that take part in an update: not those dense from the start, frozen by now, or without a gradient."""
        by_gradient = self.rule.gradients == "at_updates"
        return [
            (name, entries)
            for name, entries in active_tensors(model)
            if (entries.explored is not None or entries.num_active < entries.shape.numel())
            and entries.may_train
            and not (by_gradient and entries.dense_gradient is None)
        ]

    def _shares(self, model: nn.Module, step: int, dropped: dict[str, int]) -> dict[str, int]:
        """Entries that each tensor grows: as many as it drops, or its share of all that are dropped."""
        if self.rule.redistribute is None:
            return dropped
        claims, space, size = {}, {}, self.rule.block_size**2
        for name, entries in self._movable(model):
            claims[name] = self.rule.redistribute(self._connections(model, name, entries, step))
            back = 0 if self.rule.regrown == "never" else dropped[name]
            space[name] = (entries.shape.numel() - entries.num_active + back) // size
        shares = budgets.share_out(sum(dropped.values()) // size, claims, space)
        return {name: size * count for name, count in shares.items()}

    def _connections(self, model: nn.Module, name: str, entries: ActiveEntries, step: int) -> Connections:
        weight = entries.current(original(model, name))
        gradient = entries.dense_gradient
        if gradient is None and self.rule.gradients == "always":  # not used in this step's loss
            gradient = torch.zeros(entries.shape, device=weight.device)
        return Connections(name, weight, entries.mask(), step, self.seed, gradient, self.momentum.get(name))

    def _check_agreement(self, model: nn.Module, step: int) -> None:
        if ranks.count() > 1 and not ranks.agree(digest(current_masks(model))):
            raise RuntimeError(f"ranks moved to different entries at step {step}: a score depends on the rank")

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs beside the active entries."""
        return {**{f"momentum/{name}": tensor.cpu() for name, tensor in self.momentum.items()}, **self.history.state()}

    def load_state(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        for name, entries in active_tensors(model):
            if (mean := tensors.get(f"momentum/{name}")) is not None:
                self.momentum[name] = mean.to(entries.indices.device, copy=True)
        self.history.load_state(tensors)


def check_state(tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], block_size: int) -> None:
    """Raise a ValueError unless these are what `Mover.state` gave for tensors of these shapes."""
    rest = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        if kind != "momentum":
            rest[key] = tensor
            continue
        if name not in shapes:
            raise ValueError(f"{key} is not known")
        check_like(key, tensor, shapes[name], torch.float32)
        check_numbers({key: tensor})
    History(block_size).check_state(rest, shapes)
