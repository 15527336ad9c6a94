"""Operators of our own in `torch.ops.glue_sparse`: torch.compile puts them into its graphs without looking inside.

Each is a function with a schema and a "fake", which says the shape of the result. They know no gradients: functions of
autograd call them forward and backward, which costs less for each call than torch's own way to register gradients.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("glue_sparse", "DEF")


def operator(schema: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the decorated function an operator, for all devices.

    Args:
        schema: `name(arguments) -> results` as torch writes them; `Tensor(a!)` is an argument that is changed.
        fake: takes the arguments, of which it may read shapes and types alone, and gives results of the right ones.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=torch.Tag.pt2_compliant_tag)

    def registered(function: Callable[..., Any]) -> Callable[..., Any]:
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"glue_sparse::{name}", fake, lib=_LIBRARY)
        return getattr(torch.ops.glue_sparse, name).default

    return registered


def owned(tensor: Tensor) -> Tensor:
    """A result as contiguous tensor that autograd takes for no view: what follows may then change it in place.

    The linear map of a sequence, for one, is a view of a matrix; autograd forbids to change views that a function of
    its own has made. Nothing else holds the memory of a result, so that there is nothing to guard.
    """
    return torch.ops.aten._unsafe_view.default(tensor.contiguous(), tensor.shape)


@operator("write(Tensor(a!) weight, Tensor indices, Tensor values) -> ()", lambda weight, indices, values: None)
def write(weight: Tensor, indices: Tensor, values: Tensor) -> None:
    """Write [k] `values` at flat `indices` of a contiguous weight, in its type."""
    weight.view(-1)[indices] = values.to(weight.device, weight.dtype)
