"""How layers see the rows of a batch, found by trying: what comes in with one entry for each row, and what goes out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from glue_sparse.banks.mixed_rows import taken

Forward = Callable[..., Any]
_TRIED = (2, 3)
"""Rows of the two batches that are tried: an axis is that of the rows where its size is once this and once that."""


class Layout(NamedTuple):
    """What a layer is given and gives.

    Attributes:
        split: arguments with the rows as first axis: their places, or names.
        is_shared: none has it, and the output's first axis is 1, for all rows (embeddings of positions).
    """

    split: frozenset[int | str]
    is_shared: bool


class Layouts(NamedTuple):
    """What was found: of each layer its layout, none where it is never called, or as a text why its rows cannot be
    told apart; and parameters (by `id`) that something else uses than the layers that hold them."""

    layers: dict[nn.Module, Layout | str | None]
    elsewhere: set[int]


class _Call(NamedTuple):
    """First axes of one call: those of the tensors that come in, and that of the output (0: no tensor)."""

    given: dict[int | str, int]
    output: int


class _Uses(TorchFunctionMode):
    """Notes parameters that are used outside of the layers that hold them."""

    def __init__(self, parameters: set[int]):
        super().__init__()
        self.parameters, self.elsewhere, self.inside = parameters, set[int](), list[set[int]]()

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):  # and not a type, a shape or a device
            used = {id(one) for one in (*args, *(kwargs or {}).values()) if isinstance(one, Tensor)} & self.parameters
            self.elsewhere |= used - self.inside[-1] if self.inside else used
        return output


@contextmanager
def replaced(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Within the block these modules compute with these functions; afterwards as before."""
    before = {module: module.__dict__.get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = forward


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Modules without modules in them that hold tensors."""
    return [m for m in model.modules() if not [*m.children()] and tensors_in(m)]


def tensors_in(module: nn.Module) -> dict[str, Tensor]:
    """Attribute -> parameter or buffer that the module itself holds."""
    held = {**module._parameters, **module._buffers}
    return {attribute: tensor for attribute, tensor in held.items() if tensor is not None}


def find(model: nn.Module, batch: Mapping[str, Any], count: int) -> Layouts:
    """Try the model with rows of a batch: once two, once three.

    Args:
        batch: what the model is given.
        count: its rows.
    """
    calls: dict[nn.Module, list[list[_Call]]] = {}
    uses = _Uses({id(p) for p in model.parameters()})
    layers = layers_of(model)
    for rows in _TRIED:
        noted: dict[nn.Module, list[_Call]] = {module: [] for module in layers}
        some = _longer(taken(batch, torch.arange(rows) % count))
        with replaced({m: _noting(m, found, uses) for m, found in noted.items()}), torch.no_grad(), uses:
            model(**some)
        for module, found in noted.items():
            calls.setdefault(module, []).append(found)
    return Layouts({module: _layout(*found) for module, found in calls.items()}, uses.elsewhere)


def _longer(batch: dict[str, Any]) -> dict[str, Any]:
    """Sequences of one token twice as long: an axis of 1 could be anything."""
    lone = [name for name, x in batch.items() if isinstance(x, Tensor) and x.dim() == 2 and x.shape[1] == 1]
    return {name: x.repeat(1, 2) if name in lone else x for name, x in batch.items()}


def _noting(module: nn.Module, calls: list[_Call], uses: _Uses) -> Forward:
    forward, own = module.forward, {id(p) for p in module.parameters()}

    def noting(*args: Any, **kwargs: Any) -> Any:
        uses.inside.append(own)
        try:
            output = forward(*args, **kwargs)
        finally:
            uses.inside.pop()
        calls.append(_Call(first_axes(args, kwargs), len(output) if isinstance(output, Tensor) and output.dim() else 0))
        return output

    return noting


def first_axes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[int | str, int]:
    """Place or name of each tensor among the arguments -> size of its first axis."""
    given: dict[int | str, Any] = {**dict(enumerate(args)), **kwargs}
    return {key: len(x) for key, x in given.items() if isinstance(x, Tensor) and x.dim()}


def _layout(few: list[_Call], more: list[_Call]) -> Layout | str | None:
    if not few and not more:
        return None
    found = {_of_call(one, other) for one, other in zip(few, more, strict=False)}
    if len(few) != len(more) or len(found) > 1:
        return "is called in different ways"
    return found.pop()


def _of_call(few: _Call, more: _Call) -> Layout | str:
    sizes = {key: (size, more.given.get(key)) for key, size in few.given.items()}
    split = frozenset(key for key, both in sizes.items() if both == _TRIED)
    known = all(key in split or one == other for key, (one, other) in sizes.items())
    output = (few.output, more.output)
    if known and (split and output == _TRIED or not split and output == (1, 1)):
        return Layout(split, not split)
    return "takes or gives tensors whose first axis is not that of the rows"
