"""The base of an attached model, without a second copy of it: the reference of preference losses, for one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from glue_sparse.core.active import ActiveEntries, active_tensors
from glue_sparse.core.parametrization import held_tensors, wholly_active


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block the model is its base, bit for bit, and takes no gradients; then what has trained comes back.

    Costs two writes of the k active entries. Graphs of earlier forward passes may be used after the block.

    Args:
        model: what `attach` changed; not to be trained, moved to another device or saved within the block.
    Raises:
        ValueError: no active entries, entries that have moved, inactive ones that are zero, or a tensor that trains
            whole, of which the base's values are not kept; nothing is changed then.
    """
    entries = _entries(model)
    if any(part.is_off for _, part in entries):
        raise ValueError("the active entries of this model are disabled already: leave that block first")
    try:
        _switch(entries, True)
        with torch.no_grad():
            yield model
    finally:
        _switch(entries, False)


def reference(model: nn.Module) -> "Reference":
    """The base of an attached model as a model of its own, which needs no memory: `DPOTrainer(ref_model=...)`.

    Args:
        model: what `attach` changed, and what trains.
    Raises:
        ValueError: as `disabled`.
    """
    _entries(model)
    return Reference(model)


class Reference(nn.Module):
    """Calls a model while its active entries are disabled, without dropout; has no parameters of its own.

    What is asked of it and it does not have, such as `config` or `base_model`, is the model's.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.__dict__["model"] = model  # no submodule: its parameters are not to be counted, moved or saved twice

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the base gives; also where a trainer has given this module another `forward`."""
        training = [module for module in self.model.modules() if module.training]
        try:
            for module in training:
                module.training = False
            with disabled(self.model):
                return super().__call__(*args, **kwargs)
        finally:
            for module in training:
                module.training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """See `__call__`."""
        return self.model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["model"], name)


def _entries(model: nn.Module) -> list[tuple[str, ActiveEntries]]:
    """The active entries of a model whose base is known; see `disabled` for what is raised."""
    if any(not isinstance(held, ActiveEntries) for _, held in held_tensors(model)):
        raise ValueError("this model holds gates, which cannot be disabled")
    entries = list(active_tensors(model))
    if not entries:
        raise ValueError("this model has no active entries: call attach first")
    for name, part in entries:
        if part.inactive == "zero":
            raise ValueError(f"the inactive entries of {name} are zero, so the base is gone: attach with `inactive` "
                             "frozen")  # fmt: skip
        if part.base_values is None:
            raise ValueError(f"the active entries of {name} have moved, so what the base has there is gone: load the "
                             "base beside this model")  # fmt: skip
    if whole := sorted(wholly_active(model)):
        raise ValueError(f"{whole[0]} trains whole, so what the base has there is gone: give it a mask, or freeze it "
                         "with requires_grad_(False)")  # fmt: skip
    return entries


def _switch(entries: list[tuple[str, ActiveEntries]], is_off: bool) -> None:
    for _, part in entries:
        part.is_off = is_off
        part.fold()
