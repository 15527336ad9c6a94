"""Operators of our own in `torch.ops.glue_sparse`: torch.compile puts them into its graphs without looking inside.

Each is a function with a schema and a "fake", which says the shape of the result. They know no gradients: functions of
autograd call them forward and backward, which costs less for each call than torch's own way to register gradients.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch._higher_order_ops.auto_functionalize import do_auto_functionalize_v2
from torch._subclasses.functional_tensor import FunctionalTensorMode

from glue_sparse.kernels import entries

_LIBRARY = torch.library.Library("glue_sparse", "DEF")


def operator(schema: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the decorated function an operator, for all devices; outside graphs a call of it is that of the function.

    Args:
        schema: `name(arguments) -> results` as torch writes them; `Tensor(a!)` is an argument that is changed.
        fake: takes the arguments, of which it may read shapes and types alone, and gives results of the right ones.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=torch.Tag.pt2_compliant_tag)

    def registered(function: Callable[..., Any]) -> Callable[..., Any]:
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"glue_sparse::{name}", fake, lib=_LIBRARY)
        overload = getattr(torch.ops.glue_sparse, name).default

        def call(*arguments: Any) -> Any:
            return overload(*arguments) if torch.compiler.is_compiling() else function(*arguments)

        return call

    return registered


def owned(tensor: Tensor) -> Tensor:
    """A result as contiguous tensor that autograd takes for no view: what follows may then change it in place.

    The linear map of a sequence, for one, is a view of a matrix; autograd forbids to change views that a function of
    its own has made. Nothing else holds the memory of a result, so that there is nothing to guard.
    """
    return torch.ops.aten._unsafe_view.default(tensor.contiguous(), tensor.shape)


def is_transformed() -> bool:
    """Whether this runs inside of `torch.func`, which forbids to change tensors and takes no old-style functions."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]


class _Waiting(threading.local):
    """Writes by kernels that wait for the others of a thread; none where each is done at once."""

    writes: list[tuple[Tensor, Tensor, Tensor]] | None = None


_waiting = _Waiting()


@contextmanager
def writing_together() -> Iterator[None]:
    """Within the block no tensor on a GPU is written; they are at its end, in one launch for all of a kind."""
    _waiting.writes = found = []
    try:
        yield
    finally:
        _waiting.writes = None
        entries.write_all(found)


@operator("write(Tensor(a!) weight, Tensor indices, Tensor values) -> ()", lambda weight, indices, values: None)
def write(weight: Tensor, indices: Tensor, values: Tensor) -> None:
    """Write [k] `values` at flat `indices` of a contiguous weight, in its type, behind autograd's back.

    Indices may be int32. Autograd may have saved the weight for a product with the values that it has already: of two
    forward passes before a backward pass, the second writes the same numbers again. So the version of the weight stays
    what it is.
    """
    if not entries.takes(weight, indices, values):
        weight.data.view(-1)[indices.long()] = values.to(weight.device, weight.dtype)
    elif _waiting.writes is None:
        entries.write(weight.data, indices, values)
    else:
        _waiting.writes.append((weight.data, indices, values))


_LIBRARY.impl("write", torch.library.fallthrough_kernel, "ADInplaceOrView")  # it would count versions


@torch.library.register_torch_dispatch("glue_sparse::write", FunctionalTensorMode, lib=_LIBRARY)
def _write_in_graph(mode: Any, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """As torch puts operators that change an argument into graphs; these do not count the weight's version either."""
    out = do_auto_functionalize_v2(mode, function, args, kwargs)
    args[0].mark_mutation_hidden_from_autograd()
    return out


@operator(
    "read(Tensor tensor, Tensor indices, ScalarType dtype) -> Tensor",
    lambda tensor, indices, dtype: tensor.new_empty(indices.shape, dtype=dtype),
)
def read(tensor: Tensor, indices: Tensor, dtype: torch.dtype) -> Tensor:
    """[k] entries of a tensor at flat `indices`, int32 or int64, as `dtype`."""
    flat = tensor.reshape(-1)
    is_plain = torch.is_grad_enabled() and tensor.requires_grad  # a kernel knows no gradient
    if is_plain or not entries.takes(flat, indices):
        return flat[indices.long()].to(dtype)
    return entries.read(flat, indices, dtype)


class Watcher(Protocol):
    """What is told of gradients."""

    def seen(self, gradient: Tensor) -> None:
        """Take note of the dense gradient of one use of a tensor in a backward pass."""
        ...


_WATCHERS: "WeakValueDictionary[int, Watcher]" = WeakValueDictionary()
_NUMBERS = count()


def token_of(watcher: Watcher) -> Tensor:
    """A tensor that stands for an object, which graphs cannot hold."""
    number = next(_NUMBERS)
    _WATCHERS[number] = watcher
    return torch.tensor(number, device="cpu")


@operator("note(Tensor(a!) token, Tensor grad) -> ()", lambda token, grad: None)
def note(token: Tensor, grad: Tensor) -> None:
    """Tell the object with this token of a gradient; the token is said to change, or graphs would drop the call."""
    watcher = _WATCHERS.get(int(token))
    if watcher is not None:
        watcher.seen(grad)
