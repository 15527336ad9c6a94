"""Losses of a batch as means over its examples: whose label each target is, and what a loss was added up from.

The mean that a cross-entropy takes over all labels of a batch is no mean over examples that differ in how many they
have, or in what their classes weigh. So it is taken apart by whose each target is; where that is not known, it stays.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_MEANS = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy_with_logits)
"""Losses whose mean is over all elements alike."""
_SUMS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__)
_TIMES = (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.mul_, Tensor.__imul__)
_OVER = (torch.div, Tensor.div, Tensor.__truediv__, Tensor.div_, Tensor.__itruediv__)
_KEEPS = (Tensor.to, Tensor.float, Tensor.double, Tensor.mean, torch.mean, Tensor.sum, torch.sum, Tensor.squeeze)
_MOVES = frozenset((
    Tensor.__getitem__, Tensor.view, Tensor.reshape, torch.reshape, Tensor.flatten, torch.flatten, Tensor.transpose,
    torch.transpose, Tensor.t, torch.t, Tensor.permute, torch.permute, Tensor.movedim, torch.movedim, Tensor.swapaxes,
    Tensor.swapdims, Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze, Tensor.expand, Tensor.repeat,
    torch.repeat_interleave, Tensor.repeat_interleave, Tensor.narrow, torch.narrow, Tensor.select, torch.select,
    Tensor.masked_select, torch.masked_select, Tensor.index_select, torch.index_select, Tensor.gather, torch.gather,
    Tensor.take_along_dim, torch.take_along_dim, Tensor.roll, torch.roll, Tensor.flip, torch.flip, Tensor.unflatten,
    Tensor.split, torch.split, Tensor.chunk, torch.chunk, Tensor.unbind, torch.unbind, Tensor.view_as,
    Tensor.reshape_as, Tensor.T.__get__, Tensor.mT.__get__,  # pyright: ignore[reportAttributeAccessIssue]
))  # fmt: skip
"""Operations whose result has the elements of their first argument in other places."""
_FILLS = (Tensor.__setitem__, Tensor.copy_, Tensor.scatter, Tensor.scatter_, torch.scatter, Tensor.index_copy_)
"""Operations that write elements from elsewhere into their first argument, or into a copy of it."""

Proof = tuple[float, ...]
"""The factors of the means over examples that a loss is the sum of."""


class Owners:
    """Whose the elements of a batch's targets are, and which losses are sums of means over its examples.

    It is told of every operation, in order, and holds the small tensors that it knows something of.
    """

    def __init__(self, batch: Mapping[str, Any], num_examples: int):
        self.num_examples = num_examples
        self._owners: dict[int, tuple[Tensor, Tensor]] = {}
        self._proofs: dict[int, tuple[Tensor, Proof]] = {}
        for x in batch.values():
            if isinstance(x, Tensor) and x.dim() and len(x) == num_examples and _may_be_target(x):
                each = torch.arange(num_examples, device=x.device).view(-1, *[1] * (x.dim() - 1))
                self._owners[id(x)] = x, each.expand(x.shape)

    def of(self, x: Any) -> Tensor | None:
        """The owner of each element, of the shape of x; -1 for elements that a padding added."""
        known = self._owners.get(id(x))
        return None if known is None or known[1].shape != x.shape else known[1]

    def proof(self, loss: Tensor) -> Proof | None:
        """Equal for two batches: what holds for one of them, that it is the mean over its examples, does for both."""
        known = self._proofs.get(id(loss))
        return None if known is None else known[1]

    def loss(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """A cross-entropy as the mean over examples of what each alone would have; none if that is not known."""
        found = mean_by_example(func, args, kwargs, self.num_examples, self.of)
        if found is not None:
            self._proofs[id(found)] = found, (1.0,)
        return found

    def note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """What is known of an operation's result."""
        if isinstance(output, Tensor) and output.requires_grad and not output.dim():
            proof = self._proof(func, args, kwargs)
            self._proofs.pop(id(output), None)
            if proof is not None:
                self._proofs[id(output)] = output, proof
            return
        values = (*args, *kwargs.values())
        known = [x for x in values if isinstance(x, Tensor) and id(x) in self._owners]
        if known and func in _FILLS:
            if isinstance(args[-1], Tensor):
                self._owners.pop(id(args[0]), None)
        elif known and (func in _MOVES or func is F.pad) and (not args or known[0] is args[0]):
            if not args:
                return
            moved = _moved(func, self._owners[id(known[0])][1], args[1:], kwargs)
            for x, owners in zip(_listed(output), _listed(moved), strict=True):
                self._owners[id(x)] = x, owners
        elif known and isinstance(output, Tensor) and output.dtype != torch.bool and id(output) not in self._owners:
            owners = [self._owners[id(x)][1] for x in known]
            if _may_be_target(output) and all(x.shape == output.shape and torch.equal(x, owners[0]) for x in owners):
                self._owners[id(output)] = output, owners[0]

    def _proof(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Proof | None:
        if func in _MEANS:
            return self._mean(func, args, kwargs)
        proofs = [self.proof(x) for x in args if isinstance(x, Tensor) and x.requires_grad]
        numbers = [x for x in args if isinstance(x, int | float)]
        if not proofs or kwargs.keys() - {"dtype"} or any(proof is None for proof in proofs):
            return None
        if func in _SUMS:
            return tuple(factor for proof in proofs if proof is not None for factor in proof)
        (proof, *more) = proofs
        if proof is None or more:
            return None
        if func in (*_TIMES, *_OVER) and len(numbers) == 1 and args[0] is not numbers[0]:
            return tuple(f * numbers[0] if func in _TIMES else f / numbers[0] for f in proof)
        return proof if func in _KEEPS else None

    def _mean(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Proof | None:
        """Of a loss that is the mean over elements: that over examples, which have the same number of them."""
        given = _bound(func, args, kwargs)
        owners = self.of(given["target"])
        if given.get("reduction") != "mean" or owners is None or given["input"].shape != owners.shape:
            return None
        if given.get("size_average") is not None or given.get("reduce") is not None or int(owners.min()) < 0:
            return None
        counts = torch.bincount(owners.flatten(), minlength=self.num_examples)
        return (1.0,) if bool((counts == counts[0]).all()) else None


def mean_by_example(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], num_examples: int = 1,
    owners_of: Callable[[Tensor], Tensor | None] | None = None,
) -> Tensor | None:  # fmt: skip
    """A cross-entropy over the labels of a batch, as the mean over its examples of what each alone would have.

    An example without any label contributes nothing, where it alone would have NaN.

    Args:
        func: `F.cross_entropy` or `F.nll_loss`, with its arguments.
        owners_of: gives the example of each target, where there are several examples.
    Returns:
        None where this is no mean over labels whose examples are known.
    """
    if func not in (F.cross_entropy, F.nll_loss):
        return None
    given = _bound(func, args, kwargs)
    target, weight = given["target"], given["weight"]
    if given["reduction"] != "mean" or given["size_average"] is not None or given["reduce"] is not None:
        return None
    if target.is_floating_point() or given["input"].dim() != target.dim() + 1 or not target.dim():
        return None
    counted = target != given["ignore_index"]
    owners = owners_of(target) if owners_of is not None else None
    if num_examples > 1 and (owners is None or bool((counted & (owners < 0)).any())):
        return None
    losses = func(**{**given, "reduction": "none"})
    counts = counted.to(losses.dtype) if weight is None else weight[target.where(counted, 0)] * counted
    if num_examples == 1 or owners is None:
        summed, counts = losses.sum().view(1), counts.sum().view(1)
    else:
        places, zeros = owners.flatten().clamp(min=0), losses.new_zeros(num_examples)
        summed = zeros.index_add(0, places, losses.flatten())
        counts = zeros.index_add(0, places, counts.flatten().to(losses.dtype))
    return torch.where(counts > 0, summed / counts.where(counts > 0, 1), 0).mean()


class SingleLosses(TorchFunctionMode):
    """Within its block one example has the loss that `mean_by_example` says, without a label too: 0 instead of NaN."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        found = mean_by_example(func, args, kwargs or {})
        return func(*args, **(kwargs or {})) if found is None else found


def _moved(func: Any, owners: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func is F.pad:
        return F.pad(owners, args[0] if args else kwargs["pad"], value=-1)
    if func is Tensor.view and not isinstance(args[0], torch.dtype):
        return owners.reshape(*args)  # they need not lie in memory as the targets do
    return func(owners.contiguous(), *args, **kwargs)


def _may_be_target(x: Tensor) -> bool:
    return x.dtype != torch.bool and not x.requires_grad and (x.dim() < 3 or not x.is_floating_point())


def _bound(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    bound = inspect.signature(func).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _listed(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    else:
        for x in output:
            yield from _listed(x)
