"""Where the active entries of a model lie: counts by tensor, layers of one kind together."""

from torch import nn

from glue_sparse.core.parametrization import frozen_tensors, held_tensors, original, wholly_active

LAYER = "*"
"""Stands in a name for the number of a layer."""


def active_by_tensor(model: nn.Module) -> dict[str, dict[str, list[int]]]:
    """Count the active entries of each tensor.

    Args:
        model: with active entries attached, or a plain one.
    Returns:
        Name of the tensor, `*` for each number in it -> those numbers, joined by points (empty where there is none) ->
        [active entries, all entries]. A tensor that trains whole counts whole, a frozen one has none.
    """
    sizes = {name: (part.num_active, original(model, name).numel()) for name, part in held_tensors(model)}
    sizes |= {name: (tensor.numel(), tensor.numel()) for name, tensor in wholly_active(model).items()}
    frozen = {name: (0, tensor.numel()) for name, tensor in frozen_tensors(model).items()}
    found: dict[str, dict[str, list[int]]] = {}
    for name, counts in {**frozen, **sizes}.items():
        parts = name.split(".")
        kind = ".".join(LAYER if part.isdecimal() else part for part in parts)
        found.setdefault(kind, {})[".".join(filter(str.isdecimal, parts))] = [*counts]
    return found
