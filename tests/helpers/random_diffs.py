"""Diffs of a small BERT with random entries and changes, and what they are as dense tensors."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from glue_sparse import DiffInfo, SparseDiff, attach, noise, select
from glue_sparse.core.active import active_tensors
from glue_sparse.core.parametrization import current_tensors, wholly_active
from glue_sparse.core.params import body_names, head_names
from networks import bert

TASKS = ("mrpc", "rte", "sst2")


def trained(seed: int, num_labels: int = 2, budget: int = 2000, whole: str = "", **facts: Any) -> SparseDiff:
    """A diff of random entries with random changes; `whole` is a tensor of the base that trains as a whole."""
    model, random = bert(num_labels), torch.Generator().manual_seed(seed)
    names = [name for name in body_names(model, head_names(model)) if name != whole]
    attach(model, select(noise(model, tuple(names), seed=seed), budget))
    for _, entries in active_tensors(model):
        entries.values.data.add_(torch.randn(len(entries.values), generator=random))
    for name, parameter in wholly_active(model).items():
        if name == whole or name in head_names(model):
            parameter.data.add_(torch.randn(parameter.shape, generator=random))
    diff = SparseDiff.from_model(model, DiffInfo("tiny", type(model).__name__, task=TASKS[seed % 3], **facts))
    return replace(diff, info=replace(diff.info, num_labels=num_labels))


def base_tensors() -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in current_tensors(bert()).items()}


def full(diff: SparseDiff) -> dict[str, Tensor]:
    """All tensors of the body with a diff in them."""
    base, head = base_tensors(), head_names(bert())
    for name, values in diff.values.items():
        base[name].view(-1)[diff.positions(name)] = values
    return {name: diff.whole.get(name, tensor) for name, tensor in base.items() if name not in head}


def vectors(diffs: list[SparseDiff]) -> tuple[Tensor, Tensor]:
    """([n, all entries of the body] float64 changes, the base's entries): what papers call task vectors."""
    base, head = base_tensors(), head_names(bert())
    flat = torch.cat([tensor.flatten() for name, tensor in base.items() if name not in head]).double()
    return torch.stack([flatten(full(diff)).double() - flat for diff in diffs]), flat


def flatten(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in base_tensors() if name in tensors])


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
