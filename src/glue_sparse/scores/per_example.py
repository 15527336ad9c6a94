"""Per-example gradients of a batch, squared or absolute and summed over examples.

There are three ways, and each parameter is done by the fastest that gives what single backward passes give: the rules
of `rules.py`, which rebuild the gradients of all examples from one backward pass; `torch.func`, vectorised over
examples; one example at a time.
"""

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from glue_sparse.core.batches import Batch, batch_size, chosen_examples, example
from glue_sparse.scores.by_rules import Losses, Watched, only_these_require_grad
from glue_sparse.scores.parts import Power
from glue_sparse.scores.recorder import TokenLosses
from glue_sparse.scores.vectorised import gradients_of_each

logger = logging.getLogger(__name__)

_EXACT, _ROUNDED = (1e-3, 3e-4), (0.1, 2e-2)
"""For float32, and for types with fewer digits: the difference that rounding may make, as a share of a tensor's largest
power and, of gradients, as a share of the model's largest."""
_PART_ENTRIES = 1 << 27  # the check holds a few float32 numbers for each entry of a part


class PerExample:
    """Adds powers of per-example gradients to `totals`, batch by batch; parameters and their `.grad` stay as they are.

    The first two examples of a batch that uses a parameter in a new way are also done one at a time. The parameter is
    done by a faster way only if that gives the same.

    Args:
        model: in the mode the gradients are wanted in, eval() for dropout and batch normalisation.
        totals: parameter name -> float32 sums, changed in place; zero for what requires no gradient.
        power: `torch.square` or `torch.abs`.
        losses: what to differentiate: of a batch either the sum or the mean of its examples' losses.
    """

    def __init__(self, model: nn.Module, totals: dict[str, Tensor], power: Power, losses: Losses):
        self.model, self.totals, self.power, self.losses = model, totals, power, losses
        self.names = [name for name in totals if model.get_parameter(name).requires_grad]
        self.ruled: dict[str, frozenset[str]] = {}
        """Parameter -> the kinds of operations for which the rules were seen to be right."""
        self.vectorised: set[str] = set()
        self.singly: set[str] = set()
        self.is_mean: bool | None = None
        """Whether a batch's loss is the mean of its examples' losses, or their sum; none before it is known."""

    def add(self, batch: Batch, by_token: bool = False) -> None:
        """Add one batch; `by_token` where an example has a label for each of its tokens."""
        if batch_size(batch) < 2:
            self._add_singly(batch, self.names, self.totals)
            return
        if not self.ruled and not self.singly and not self.vectorised:
            self._learn(batch, self.names, by_token)
        fast = [name for name in self.names if name in self.ruled]
        done = self._add_by_rules(batch, fast, by_token) if fast else set()
        rest = [name for name in self.names if name not in done]
        if set(rest) <= self.vectorised:
            self._add_vectorised(batch, rest, self.totals)
        else:  # single passes cost as much for some tensors as for all
            self._add_singly(batch, rest, self.totals)

    def _add_by_rules(self, batch: Batch, names: list[str], by_token: bool) -> set[str]:
        """Add what the rules can; returns the parameters that are done."""
        with only_these_require_grad(self.model, names) as parameters:
            watched = Watched(self.model, parameters, batch, self.losses)
            if by_token and not watched.num_token_losses:
                return set()
            new = {name for name in watched.known if not watched.kinds[name] <= self.ruled[name]}
            if new:
                self._learn(batch, [name for name in names if name in new], by_token)
            right = {name for name in watched.known if watched.kinds[name] <= self.ruled.get(name, frozenset())}
            watched.add(right, self.totals, self.power, self._factor(batch))
        self._give_up(set(names) - watched.known, "used where no rule sees it")
        return right

    def _factor(self, batch: Batch) -> float:
        return float(batch_size(batch)) if self.is_mean else 1.0

    def _learn(self, batch: Batch, names: list[str], by_token: bool) -> None:
        """Find out by the first two examples how to do these parameters, a part of a large model at a time."""
        part: list[str] = []
        size = 0
        for name in names:
            part.append(name)
            size += self.totals[name].numel()
            if size >= _PART_ENTRIES or name == names[-1]:
                self._learn_part(chosen_examples(batch, slice(2)), part, by_token)
                part, size = [], 0

    def _learn_part(self, pair: Batch, names: list[str], by_token: bool) -> None:
        right = self._zeros(names)
        losses = self._add_singly(pair, names, right)
        reason = "an operation without a rule"
        with only_these_require_grad(self.model, names) as parameters:
            found, known, kinds = self._zeros(names), set(), {}
            try:
                watched = Watched(self.model, parameters, pair, self.losses)
                if self._is_additive(watched, losses, by_token):
                    watched.add(watched.known, found, self.power, self._factor(pair))
                    known, kinds = watched.known, watched.kinds
                else:
                    reason = "the loss of a batch is neither the sum nor the mean of its examples' losses"
            except Exception as error:  # models of any kind are watched here; the other ways do not watch
                reason = f"{type(error).__name__}: {_line(error)}"
        equal = self._equal(right, found)
        for name in names:
            if name in known and name in equal:
                self.ruled[name] = self.ruled.get(name, frozenset()) | kinds[name]
        self._slower(pair, right, [name for name in names if name not in known or name not in equal], reason)

    def _is_additive(self, watched: Watched, losses: list[float], by_token: bool) -> bool:
        """Whether the loss of two examples follows from those of each; learns how."""
        if by_token and not watched.num_token_losses:
            return False  # a mean over tokens may be the mean over two examples by chance
        together, apart = float(sum(loss.detach() for loss in watched.losses)), sum(losses)
        tolerance = 3e-3 if all(torch.finfo(loss.dtype).bits >= 32 for loss in watched.losses) else 3e-2
        close = [abs(factor * together - apart) <= tolerance * (abs(apart) + 1e-6) for factor in (2, 1)]
        if self.is_mean is None and any(close):
            self.is_mean = close[0]
        return any(close) and close[0 if self.is_mean else 1]

    def _slower(self, pair: Batch, right: dict[str, Tensor], names: list[str], reason: str) -> None:
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
        self.singly |= names
        if names:
            listed = _listed(sorted(names))
            logger.warning("no per-example rule for %s: done one example at a time (%s)", listed, reason)

    def _equal(self, right: dict[str, Tensor], found: dict[str, Tensor], top: float | None = None) -> set[str]:
        """The parameters of which both are alike, up to rounding."""
        top = max(map(_largest, right.values()), default=0.0) if top is None else top
        equal = set()
        for name, total in right.items():
            is_exact = torch.finfo(self.model.get_parameter(name).dtype).bits >= 32
            relative, floor = _EXACT if is_exact else _ROUNDED
            limit = relative * _largest(total) + float(self.power(torch.tensor(floor))) * top
            if not total.numel() or float((found[name] - total).abs().max()) <= limit:
                equal.add(name)
        return equal

    def _zeros(self, names: Iterable[str]) -> dict[str, Tensor]:
        return {name: torch.zeros_like(self.totals[name]) for name in names}

    def _add_vectorised(self, batch: Batch, names: list[str], totals: dict[str, Tensor]) -> None:
        if not names:
            return
        for gradients in gradients_of_each(self.model, names, batch, self.losses):
            for name, gradient in gradients.items():
                totals[name] += self.power(gradient.float()).flatten(0, 1).sum(0)

    def _add_singly(self, batch: Batch, names: list[str], totals: dict[str, Tensor]) -> list[float]:
        """One backward pass for each example; returns their losses."""
        values: list[float] = []
        with only_these_require_grad(self.model, names) as parameters:
            held = {name: parameter.grad for name, parameter in parameters.items()}
            for i in range(batch_size(batch) if names else 0):
                with TokenLosses():
                    found = list(self.losses(self.model, example(batch, i)))
                losses = [loss for loss in found if loss.requires_grad]
                for j, loss in enumerate(losses):
                    for parameter in parameters.values():
                        parameter.grad = None
                    loss.backward(retain_graph=j + 1 < len(losses))  # not `grad`, which checkpointed layers refuse
                    for name, parameter in parameters.items():
                        if parameter.grad is not None:
                            gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
                            totals[name] += self.power(gradient.float())
                values.append(float(sum(loss.detach() for loss in found)))
            for name, parameter in parameters.items():
                parameter.grad = held[name]
        return values


def _largest(tensor: Tensor) -> float:
    return float(tensor.max()) if tensor.numel() else 0.0


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:120]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
