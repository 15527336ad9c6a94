"""How a network that is sparse from the start begins: entries per tensor, first masks, the scale of what is left."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from glue_sparse.core import budgets, tiles
from glue_sparse.core.active import active_tensors
from glue_sparse.core.masks import Masks, select
from glue_sparse.core.names import match
from glue_sparse.core.parametrization import original
from glue_sparse.core.params import sparsifiable, trainable_names
from glue_sparse.scores.scores import magnitude, noise
from glue_sparse.writing.words import check_one_of

VarianceOf = Literal["fan_in", "fan_out"]


def entry_counts(
    model: nn.Module,
    head: tuple[str, ...],
    density: float,
    distribution: str | budgets.Distribution,
    power: float,
    densities: Mapping[str, float],
    tensors: Sequence[str],
    block_size: int = 1,
) -> dict[str, int]:
    """Tensor to make sparse -> entries it keeps, in whole tiles; arguments and errors as for `DropGrow`."""
    if tensors:
        axes = _known_axes(model, head)
        axes = {name: axes.get(name) for name in trainable_names(model, head, tensors)}
    else:
        axes = sparsifiable(model, head)
    custom = {name: share for pattern, share in densities.items() for name in match(tuple(axes), (pattern,))}
    stacks = all(axis is not None for axis in axes.values())  # of a transformer: experts are stacks of matrices
    shapes = {name: tuple(model.get_parameter(name).shape) for name in axes}
    for name, shape in shapes.items():
        tiles.check(name, shape, block_size)
    counts = budgets.distribute(
        shapes, density, distribution, power=power, custom=custom, matrix_dims=2 if stacks else None
    )
    return budgets.in_tiles(counts, shapes, block_size)


def _known_axes(model: nn.Module, head: tuple[str, ...]) -> dict[str, int | None]:
    """As `sparsifiable`; nothing for a network of which nothing is by itself, and whose tensors are named."""
    try:
        return sparsifiable(model, head)
    except ValueError:
        return {}


def initial_masks(
    model: nn.Module, counts: dict[str, int], seed: int, start: str, block_size: int = 1
) -> Masks:
    """Masks to start from: each tensor's largest weights (`magnitude`), or a draw by the seed (`random`)."""
    check_one_of("start", start, ("magnitude", "random"))
    names = tuple(counts)
    scores = magnitude(model, names) if start == "magnitude" else noise(model, names, seed=seed)
    return select(scores, counts, block_size=block_size)


@torch.no_grad()
def keep_variance(model: nn.Module, of: VarianceOf) -> None:
    """Scale the active entries of each unit by sqrt(fan of the dense layer / its active entries).

    A unit is an output for `fan_in`, whose sums then vary as those of the dense layer do (He et al., 2015, arXiv
    1502.01852, with the fan that is left), and an input for `fan_out`, where gradients do.
    """
    for name, entries in active_tensors(model):
        weight = original(model, name)
        (stacks, rows, columns, rest), outputs_first = _as_matrices(model, name, weight.shape)
        stack = entries.indices // (rows * columns * rest)
        if outputs_first == (of == "fan_in"):
            num_units, unit = stacks * rows, entries.indices // (columns * rest)
        else:
            num_units, unit = stacks * columns, stack * columns + entries.indices // rest % columns
        counts = torch.bincount(unit, minlength=num_units)
        fan = weight.numel() / num_units
        entries.values.mul_((fan / counts.clamp(min=1)).sqrt()[unit].to(entries.values.dtype))
        entries.fold()


def _as_matrices(model: nn.Module, name: str, shape: torch.Size) -> tuple[tuple[int, int, int, int], bool]:
    """A tensor's shape as (groups or experts, rows, columns, kernel), and whether its rows are outputs."""
    module = model.get_submodule(name.rpartition(".")[0])
    kind = parametrize.type_before_parametrizations(module)
    if hasattr(module, "is_transposed") and len(shape) == 3:  # fused experts
        return (shape[0], shape[1], shape[2], 1), not module.is_transposed
    groups = getattr(module, "groups", 1)
    inputs_first = issubclass(kind, Conv1D | nn.modules.conv._ConvTransposeNd)
    return (groups, shape[0] // groups, shape[1], math.prod(shape[2:])), not inputs_first
