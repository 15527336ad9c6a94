"""Weight emergence: how many weights of a model's layers are near zero, and how the weights of a layer spread."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from glue_sparse.core.names import block_of, kind_of
from glue_sparse.core.params import encoder_matrices

Shapes = dict[str, tuple[int, ...]]

EDGES = torch.linspace(-5, 5, 202, dtype=torch.float64)
"""Edges of the 201 bins of all histograms, in standard deviations; zero is the middle of the middle bin."""


class Small(NamedTuple):
    """How many entries are small, out of how many."""

    small: int
    entries: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.small / self.entries


@dataclass(frozen=True)
class Measured:
    """The small weights of one checkpoint."""

    label: str
    step: int | None
    shapes: Shapes
    small: dict[float, dict[str, Small]]
    """Threshold -> matrix -> its small entries."""


@dataclass(frozen=True)
class Histogram:
    """The weights of one layer, its matrices together, minus their mean and over their standard deviation."""

    counts: Tensor
    """[201] int64, entries in each bin of `EDGES`."""
    entries: int
    mean: float
    std: float

    @property
    def density(self) -> Tensor:
        """[201] float64, the height of each bin; over all real numbers the area is 1."""
        return self.counts / (self.entries * EDGES.diff())

    @property
    def outside(self) -> float:
        """Share of the entries beyond the outermost edges."""
        return 1 - int(self.counts.sum()) / self.entries


def layer_matrices(model: nn.Module) -> dict[str, Tensor]:
    """The matrices inside a model's numbered layers (`params.encoder_matrices`), named as in the model without head.

    Raises:
        ValueError: there are none, or one holds values that are not finite.
    """
    body = getattr(model, "base_model", model)
    matrices = {name: body.get_parameter(name).detach() for name in encoder_matrices(body)}
    for name, weight in matrices.items():
        if not bool(weight.isfinite().all()):
            raise ValueError(f"{name} holds values that are not finite")
    return matrices


def shapes(matrices: Mapping[str, Tensor]) -> Shapes:
    """Name -> shape."""
    return {name: tuple(weight.shape) for name, weight in matrices.items()}


def check_thresholds(thresholds: Sequence[float]) -> None:
    """Raise a ValueError unless all are finite, above 0 and different."""
    for tau in thresholds:
        if not (math.isfinite(tau) and tau > 0):
            raise ValueError(f"a threshold (`tau`) is a finite number above 0, not {tau:g}")
    if len(set(thresholds)) < len(thresholds):
        raise ValueError(f"a threshold is given twice: `tau` {' '.join(f'{tau:g}' for tau in thresholds)}")


def check_same(one: str, its: Shapes, other: str, others: Shapes) -> None:
    """Raise a ValueError that names the first matrix in which the models called `one` and `other` differ."""
    for name in {**its, **others}:
        if its.get(name) != others.get(name):
            found = [f"{found[name]} in {label}" for label, found in ((one, its), (other, others)) if name in found]
            found += ["is missing in the other"] if len(found) < 2 else []
            raise ValueError(f"{other} is another architecture than {one}: {name} is {' and '.join(found)}")


def count_small(matrices: Mapping[str, Tensor], tau: float, relative: bool = False) -> dict[str, Small]:
    """Entries of each matrix with |w| < tau, compared in float64 (Jaiswal et al., 2023, arXiv 2306.03805).

    The paper counts `zero weights` and does not state its threshold, so this one is the caller's.

    Args:
        matrices: name -> weights of any shape and floating-point type.
        tau: the threshold, above 0.
        relative: tau is in standard deviations (of all entries of the matrix, divided by n) of each matrix.
    """
    check_thresholds([tau])
    found = {}
    for name, weight in matrices.items():
        exact = weight.double()
        threshold = tau * float(exact.std(correction=0)) if relative else tau
        found[name] = Small(int((exact.abs() < threshold).sum()), weight.numel())
    return found


def measure(
    label: str, step: int | None, model: nn.Module, thresholds: Sequence[float], relative: bool = False
) -> Measured:
    """Count the small weights of a model at several thresholds; raises as `layer_matrices` and `count_small`."""
    matrices = layer_matrices(model)
    small = {tau: count_small(matrices, tau, relative) for tau in thresholds}
    return Measured(label, step, shapes(matrices), small)


def per_layer(found: Mapping[str, Small]) -> dict[str, Small]:
    """The sums of each layer; a layer is the name up to its first number."""
    return _summed(found, lambda name: block_of(name) or name)


def per_kind(found: Mapping[str, Small]) -> dict[str, Small]:
    """The sums of each kind: the matrices of all layers that have the same name there."""
    return _summed(found, kind_of)


def total(found: Mapping[str, Small]) -> Small:
    """The sum of all."""
    return _summed(found, lambda name: "all")["all"]


def _summed(found: Mapping[str, Small], key: Callable[[str], str]) -> dict[str, Small]:
    sums: dict[str, Small] = {}
    for name, (small, entries) in found.items():
        before = sums.get(key(name), Small(0, 0))
        sums[key(name)] = Small(before.small + small, before.entries + entries)
    return sums


def histograms(matrices: Mapping[str, Tensor]) -> dict[str, Histogram]:
    """Layer -> histogram of its standardised weights.

    Raises:
        ValueError: a layer whose weights are all equal.
    """
    layers: dict[str, list[Tensor]] = {}
    for name, weight in matrices.items():
        layers.setdefault(block_of(name) or name, []).append(weight)
    return {layer: _histogram(layer, weights) for layer, weights in layers.items()}


def _histogram(layer: str, weights: Sequence[Tensor]) -> Histogram:
    entries = sum(weight.numel() for weight in weights)
    mean = sum(float(weight.double().sum()) for weight in weights) / entries
    std = math.sqrt(sum(float((weight.double() - mean).square().sum()) for weight in weights) / entries)
    if std == 0:
        raise ValueError(f"the weights of {layer} are all equal and have no histogram")
    counts = torch.zeros(len(EDGES) - 1, dtype=torch.int64)
    for weight in weights:  # one at a time, since a whole layer in float64 can be large
        standardised = ((weight.double() - mean) / std).flatten().cpu()
        counts += torch.histogram(standardised, EDGES).hist.long()
    return Histogram(counts, entries, mean, std)
