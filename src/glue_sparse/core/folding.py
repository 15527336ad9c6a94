"""Values lie in their tensors: they are written there after each step of an optimizer, and forward passes only read.

What changes values outside of an optimizer is seen by the next forward pass where torch counts it (`values.copy_(...)`,
another memory), or where the model has been switched between training and evaluation since. Changes of `.data` in place
are not counted. So a forward pass writes all the same before an optimizer has made the first step, and it compares
after the steps 1, 2, 4, 8, ...; where something else changes values as well it is seen by that, and each pass writes
from then on. A single such change amid training has to be told by `fold`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Self
from weakref import WeakSet, ref

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from glue_sparse.core import operators, shards
from glue_sparse.core.parametrization import Parametrization, held_tensors, original


class Folding(Parametrization):
    """Base of a parametrization whose values are at some positions of its tensor.

    Attributes:
        values: [k] parameter.
        places: [k] sorted flat positions.
        base_values: [k] what the base has there, or none where that is not known.
        is_off: whether the tensor holds the base's values instead, see `reference.disabled`.
    """

    values: nn.Parameter
    places: Tensor
    base_values: Tensor | None = None
    is_off = False
    _home: "ref[Tensor] | None" = None
    _owner: "ref[Any] | None" = None
    _inside: tuple[Any, Tensor] | None = None
    _folded: tuple[Any, ...] | None = None
    _steps = 0
    _looked = 0
    _is_changed_by_hand = False

    def settle(self, weight: Tensor, owner: Any = None) -> None:
        """Take note of the tensor, so that a step of an optimizer is followed there.

        Args:
            owner: of a part, the module that FSDP has put together with it.
        """
        self._home, self._owner = ref(weight), None if owner is None else ref(owner)
        self._inside = None if owner is None else shards.inside(weight, self.places)  # once, since a GPU would wait
        _SETTLED.add(self)
        _listen()

    @property
    def is_sharded(self) -> bool:
        """Whether the tensor is shared out over ranks, so that what a forward pass sees is a copy."""
        return self._owner is not None

    def write(self, weight: Tensor) -> None:
        """Write the values into their tensor, or its part that is here, behind autograd's back.

        Autograd may have saved the tensor for a product with the values that it has already: of two forward passes
        before a backward pass, the second writes the same numbers again. So the tensor's version stays what it is.
        """
        if not self.is_sharded and not weight.is_contiguous():  # after model.to(memory_format=...)
            weight.data = weight.data.contiguous()
        if self._inside is None:
            shards.write(weight, self.places, self._present())
        else:
            shards.write_inside(weight, self._inside, self._present())
        self._folded = self._state(weight)

    def fold(self, *, is_step: bool = False) -> None:
        """Write the values into their tensor, where that is known; otherwise the next forward pass does it.

        Args:
            is_step: let autograd know of the change, as an optimizer does that changes a tensor itself.
        """
        weight, self._folded = self._home and self._home(), None
        if weight is None or not self.is_sharded and not weight.untyped_storage().size():
            return
        self._steps += is_step
        if self._owner is not None and (owner := self._owner()) is not None:
            owner.reshard()  # or a copy that is there would be used again
        elif is_step:
            torch.autograd.graph.increment_version(weight)
        self.write(weight)

    def catch_up(self, weight: Tensor) -> None:
        """Write the values into the tensor of a forward pass, unless it has them."""
        if torch.compiler.is_compiling():  # a graph cannot tell whether it has
            operators.write(weight.data, self.places, self._present())
            return
        if self.is_sharded:  # what is here is a copy
            return
        if self._home is None or self._home() is not weight:
            self.settle(weight)
        if not self._steps or self._is_changed_by_hand or self.is_stale(weight) or self._is_found_changed(weight):
            self.write(weight)

    def catch_up_part(self) -> None:
        """The same for a part, before it is put together with the others; all ranks do alike, by what torch counts."""
        weight = self._home and self._home()
        if weight is not None and self.is_stale(weight):
            self.fold()

    def _is_found_changed(self, weight: Tensor) -> bool:
        """Look whether the tensor has the values, now and then: a look costs as much as to write them."""
        if self._looked == self._steps or self._steps & (self._steps - 1):
            return False
        self._looked = self._steps
        self._is_changed_by_hand = not shards.holds(weight, self.places, self._present())
        return self._is_changed_by_hand

    def _present(self) -> Tensor:
        return self.base_values if self.is_off and self.base_values is not None else self.values.detach()

    def train(self, mode: bool = True) -> Self:
        """As in any module; what averages weights for an evaluation changes their `.data` at such a time."""
        if mode != self.training:
            self._folded = None
        return super().train(mode)

    def is_stale(self, weight: Tensor) -> bool:
        """Whether the values, or their tensor, have changed, as far as torch counts, since they were written."""
        return self._folded != self._state(weight)

    def _state(self, weight: Tensor) -> tuple[Any, ...]:
        own = (self.is_off, self.values._version, self.values.data_ptr())
        return own if self.is_sharded else (*own, weight._version, weight.data_ptr())

    def __getstate__(self) -> dict[str, Any]:
        """For copies, which are somewhere else."""
        return {**self.__dict__, **dict.fromkeys(("_home", "_owner", "_inside", "_folded"))}


_SETTLED: "WeakSet[Folding]" = WeakSet()


@cache
def _listen() -> None:
    """Hear of the steps of all optimizers, those of other libraries' trainers too; once a process."""
    register_optimizer_step_post_hook(_after_step)


def _after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Called after an optimizer has stepped, and after its own hooks; not where a scaler has skipped the step."""
    if not _SETTLED:
        return
    stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    with operators.writing_together():
        for held in list(_SETTLED):
            if id(held.values) in stepped:
                if shards.is_part(held.values):
                    raise RuntimeError("the values of active entries were shared out over ranks with the base, so that "
                                       "they miss their weights: shard the model by glue_sparse.shard, or give `fsdp` "
                                       "to SparseTrainer or SaveDiff, in place of accelerate's")  # fmt: skip
                held.fold(is_step=True)


@contextmanager
def written_in_each_pass(model: nn.Module) -> Iterator[None]:
    """Within the block values are not folded, but written by each use of a tensor: to measure what that costs."""
    held = [one for _, one in held_tensors(model) if isinstance(one, Folding)]
    for one in held:
        _SETTLED.discard(one)
        one._is_changed_by_hand = True
    try:
        yield
    finally:
        for one in held:
            _SETTLED.add(one)
            one._is_changed_by_hand = False
            one.fold()


def fold(model: nn.Module) -> None:
    """Write the values of a model's active entries into its tensors; to be called after they were changed by hand.

    Optimizers need none of this. Under FSDP all ranks call it.

    Args:
        model: what `attach` changed.
    """
    for _, held in held_tensors(model):
        if isinstance(held, Folding):
            held.fold()


def check_folded(model: nn.Module) -> None:
    """Raise a RuntimeError where a tensor does not hold its values: they were changed by hand, unseen by torch.

    Costs a look at the k active entries. Of a sharded model each rank sees its own part.

    Args:
        model: what `attach` changed.
    """
    for name, held in held_tensors(model):
        if not isinstance(held, Folding) or held.is_off:
            continue
        weight = original(model, name)
        if not shards.holds(weight, held.places, held.values.detach()):
            raise RuntimeError(f"{name} does not hold the values of its active entries: something has changed them "
                               "outside of an optimizer; call fold(model) after that")  # fmt: skip
