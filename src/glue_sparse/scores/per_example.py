"""Per-example gradients of a batch, squared or absolute and summed over examples.

There are three ways, and each parameter is done by the fastest that gives what single backward passes give: the rules
of `rules.py`, which rebuild the gradients of all examples from one backward pass; `torch.func`, vectorised over
examples; one example at a time.
"""

import logging
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from glue_sparse.core.batches import Batch, batch_size, chosen_examples, example, only_these_require_grad
from glue_sparse.core.pieces import SIZE
from glue_sparse.core.recompute import recomputed
from glue_sparse.scores.by_rules import Losses, Watched
from glue_sparse.scores.losses import Proof, SingleLosses
from glue_sparse.scores.parts import Power
from glue_sparse.scores.passing import grads_kept, take_whole
from glue_sparse.scores.sums import Sums
from glue_sparse.scores.vectorised import gradients_of_each

logger = logging.getLogger(__name__)

_EXACT, _ROUNDED = (1e-3, 3e-4), (0.1, 2e-2)
"""For float32, and for types with fewer digits: the difference that rounding may make, as a share of a tensor's largest
power and, of gradients, as a share of the model's largest."""
_COUPLED = "the loss of a batch is neither the sum nor the mean of its examples' losses"
_PART_ENTRIES, _PART = 1 << 25, 1 / 8
"""The check holds two float32 numbers for each entry of a part: so many, or this share of the model if that is more."""


class PerExample:
    """Adds powers of per-example gradients to `totals`, batch by batch; parameters and their `.grad` stay as they are.

    The first two examples of a batch that uses a parameter in a new way are also done one at a time. The parameter is
    done by a faster way only if that gives the same.

    Args:
        model: in the mode the gradients are wanted in, eval() for dropout and batch normalisation.
        totals: sums, changed in place; zero for what requires no gradient.
        power: `torch.square` or `torch.abs`.
        losses: what to differentiate. Where those of a batch are neither the sum nor the mean of its examples', these
            are done apart.
        recomputes: do one example at a time, under `core.recompute`: slow, and with the activations of one layer and
            the gradient of one tensor at a time.
        are_sums: whether the losses are sums over examples by the way they are made; else each batch's are compared
            with those of its examples, unless operations that are known to give a mean over examples made them.
    """

    def __init__(
        self, model: nn.Module, totals: Sums, power: Power, losses: Losses, are_sums: bool = False,
        recomputes: bool = False,
    ):  # fmt: skip
        self.model, self.totals, self.power, self.losses, self.are_sums = model, totals, power, losses, are_sums
        self.recomputes = recomputes
        self.names = [name for name in totals if model.get_parameter(name).requires_grad]
        self.ruled: dict[str, frozenset[str]] = {}
        """Parameter -> the kinds of operations for which the rules were seen to be right."""
        self.vectorised: set[str] = set()
        self.singly: set[str] = set()
        self.is_mean: bool | None = None
        """Whether a batch's loss is the mean of its examples' losses, or their sum; none before it is known."""
        self.proofs: set[tuple[Proof | None, ...]] = set()
        """Of losses that were seen to be such a mean or sum."""

    def add(self, batch: Batch) -> None:
        """Add one batch."""
        if batch_size(batch) < 2 or self.recomputes:
            self._add_singly(batch, self.names, self.totals)
            return
        if not self.ruled and not self.singly and not self.vectorised:
            self._learn(batch, self.names)
        fast = [name for name in self.names if name in self.ruled]
        done = self._add_by_rules(batch, fast) if fast else set()
        rest = [name for name in self.names if name not in done]
        # single passes cost as much for some tensors as for all
        if not set(rest) <= self.vectorised or not self._are_vectorised(batch, rest):
            self._add_singly(batch, rest, self.totals)

    def _are_vectorised(self, batch: Batch, names: list[str]) -> bool:
        """Add these by `torch.func`, or nothing if it cannot follow the model in this batch."""
        found = self._zeros(names)
        try:
            self._add_vectorised(batch, names, found)
        except Exception as error:  # as in `_slower`
            self._give_up(set(names), f"torch.func: {_line(error)}")
            return False
        for name in names:
            self.totals.add(name, found[name])
        return True

    def _add_by_rules(self, batch: Batch, names: list[str]) -> set[str]:
        """Add what the rules can; returns the parameters that are done."""
        with only_these_require_grad(self.model, names) as parameters:
            try:
                watched = Watched(self.model, parameters, batch, self.losses)
            except Exception as error:  # of a model that takes other batches together
                self._give_up(set(names), f"{type(error).__name__}: {_line(error)}")
                return set()
            if not self._is_proven(watched) and not self._is_additive(watched, self._losses_apart(batch)):
                pair = chosen_examples(batch, slice(2))
                right = self._zeros(names)
                self._add_singly(pair, names, right)
                self._slower(pair, right, names, _COUPLED)
                return set()
            new = {name for name in watched.known if not watched.kinds[name] <= self.ruled[name]}
            if new:
                self._learn(batch, [name for name in names if name in new])
            right = {name for name in watched.known if watched.kinds[name] <= self.ruled.get(name, frozenset())}
            watched.add(right, self.totals, self.power, self._factor(batch))
        self._give_up(set(names) - watched.known, "used where no rule sees it")
        return right

    def _factor(self, batch: Batch) -> float:
        return float(batch_size(batch)) if self.is_mean else 1.0

    def _learn(self, batch: Batch, names: list[str]) -> None:
        """Find out by the first two examples how to do these parameters, a part of a large model at a time."""
        part: list[str] = []
        size, most = 0, max(_PART_ENTRIES, _PART * sum(self.totals[name].numel() for name in names))
        for name in names:
            part.append(name)
            size += self.totals[name].numel()
            if size >= most or name == names[-1]:
                self._learn_part(chosen_examples(batch, slice(2)), part)
                part, size = [], 0

    def _learn_part(self, pair: Batch, names: list[str]) -> None:
        right = self._zeros(names)
        losses = self._add_singly(pair, names, right)
        reason = "an operation without a rule"
        with only_these_require_grad(self.model, names) as parameters:
            found, known, kinds = self._zeros(names), set(), {}
            try:
                watched = Watched(self.model, parameters, pair, self.losses)
                if self._is_additive(watched, losses):
                    watched.add(watched.known, found, self.power, self._factor(pair))
                    known, kinds = watched.known, watched.kinds
                else:
                    reason = _COUPLED
            except Exception as error:  # models of any kind are watched here; the other ways do not watch
                reason = f"{type(error).__name__}: {_line(error)}"
        equal = self._equal(right, found)
        for name in names:
            if name in known and name in equal:
                self.ruled[name] = self.ruled.get(name, frozenset()) | kinds[name]
        self._slower(pair, right, [name for name in names if name not in known or name not in equal], reason)

    def _is_proven(self, watched: Watched) -> bool:
        """Whether the batch's loss is known, without a look at its examples, to be their mean or sum."""
        return self.are_sums and self.is_mean is False or watched.proofs in self.proofs

    def _is_additive(self, watched: Watched, apart: list[float]) -> bool:
        """Whether the loss of some examples follows from those of each; learns how."""
        together, size = float(sum(loss.detach() for loss in watched.losses)), sum(map(abs, apart))
        tolerance = 1e-4 if all(torch.finfo(loss.dtype).bits >= 32 for loss in watched.losses) else 3e-2
        close = [abs(factor * together - sum(apart)) <= tolerance * size for factor in (len(apart), 1)]
        if size == 0 or not any(close):  # zeros say nothing
            return False
        if self.is_mean is None:
            self.is_mean = close[0]
        if not close[0 if self.is_mean else 1]:
            return False
        if None not in watched.proofs:
            self.proofs.add(watched.proofs)
        return True

    def _losses_apart(self, batch: Batch) -> list[float]:
        """The loss of each example."""
        with torch.no_grad(), SingleLosses():
            found = [self.losses(self.model, example(batch, i)) for i in range(batch_size(batch))]
        return [float(sum(losses)) for losses in found]

    def _slower(self, pair: Batch, right: Sums, names: list[str], reason: str) -> None:
        """Do these parameters by `torch.func`, or singly."""
        if not names:
            return
        for name in names:
            self.ruled.pop(name, None)
        found = self._zeros(names)
        try:
            self._add_vectorised(pair, names, found)
            equal = self._equal({name: right[name] for name in names}, found, max(map(_largest, right.values())))
        except Exception as error:  # it refuses what it cannot vectorise with errors of many kinds
            equal = set()
            reason = f"{reason}; torch.func: {_line(error)}"
        self.vectorised |= equal
        if equal:
            logger.info("per-example gradients by torch.func for %s (%s)", _listed(sorted(equal)), reason)
        self._give_up(set(names) - equal, reason)

    def _give_up(self, names: set[str], reason: str) -> None:
        for name in names:
            self.ruled.pop(name, None)
        self.vectorised -= names
        self.singly |= names
        if names:
            listed = _listed(sorted(names))
            logger.warning("no per-example rule for %s: done one example at a time (%s)", listed, reason)

    def _equal(self, right: Mapping[str, Tensor], found: Mapping[str, Tensor], top: float | None = None) -> set[str]:
        """The parameters of which both are alike, up to rounding."""
        top = max(map(_largest, right.values()), default=0.0) if top is None else top
        equal = set()
        for name, total in right.items():
            is_exact = torch.finfo(self.model.get_parameter(name).dtype).bits >= 32
            relative, floor = _EXACT if is_exact else _ROUNDED
            limit = relative * _largest(total) + float(self.power(torch.tensor(floor))) * top
            if _farthest(found[name], total) <= limit:
                equal.add(name)
        return equal

    def _zeros(self, names: Iterable[str]) -> Sums:
        return Sums.zeros(self.model, (*names,))

    def _add_vectorised(self, batch: Batch, names: list[str], totals: Sums) -> None:
        if not names:
            return
        for gradients in gradients_of_each(self.model, names, batch, self.losses):
            for name, gradient in gradients.items():
                with totals.adding(name) as total:
                    total += self.power(gradient.float()).flatten(0, 1).sum(0)

    def _add_singly(self, batch: Batch, names: list[str], totals: Sums) -> list[float]:
        """One backward pass for each example; returns their losses."""
        values: list[float] = []
        take = partial(totals.add, function=self.power)
        layers = recomputed(self.model) if self.recomputes else nullcontext()
        with only_these_require_grad(self.model, names) as parameters, grads_kept(parameters.values()), layers:
            for i in range(batch_size(batch) if names else 0):
                with SingleLosses():
                    found = list(self.losses(self.model, example(batch, i)))
                losses = [loss for loss in found if loss.requires_grad]
                for j, loss in enumerate(losses):
                    take_whole(loss, parameters, take, retain_graph=j + 1 < len(losses))
                values.append(float(sum(loss.detach() for loss in found)))
        return values


def _largest(tensor: Tensor) -> float:
    return float(tensor.max()) if tensor.numel() else 0.0


def _farthest(found: Tensor, right: Tensor) -> float:
    """The largest difference, by pieces: one of whole tensors would cost as much as a gradient."""
    if not right.numel():
        return 0.0
    pairs = zip(found.reshape(-1).split(SIZE), right.reshape(-1).split(SIZE), strict=True)
    return float(torch.stack([(a - b).abs_().max() for a, b in pairs]).max())


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:120]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
