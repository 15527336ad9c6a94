"""Diffs of small networks for the tests of banks, and what each must make of a fresh model."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glue_sparse import DiffInfo, SparseDiff, TaskBank, attach, noise, select
from glue_sparse.core.active import Inactive, active_tensors
from glue_sparse.core.parametrization import wholly_active
from glue_sparse.core.params import body_names, head_names


def made(
    model: nn.Module, seed: int = 0, inactive: Inactive = "frozen", budget: int = 300, dense: bool = False,
    **facts: Any,
) -> SparseDiff:  # fmt: skip
    """A diff of random numbers; leaves `model` attached.

    Args:
        dense: all tensors are whole.
        facts: of its info.
    """
    names = body_names(model, head_names(model))
    attach(model, {} if dense else select(noise(model, names, seed=seed), budget), inactive)
    generator = torch.Generator().manual_seed(seed)
    for _, entries in active_tensors(model):
        entries.values.data.copy_(torch.rand(entries.values.shape, generator=generator))
    for parameter in wholly_active(model).values():
        parameter.data.copy_(torch.rand(parameter.shape, generator=generator))
    return SparseDiff.from_model(model, DiffInfo(**{"base_model": "tiny", **facts}))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """All that `state_dict` saves, copied."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(model: nn.Module, wanted: Mapping[str, Tensor]) -> bool:
    """Whether a model has exactly these tensors."""
    found = model.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in found)


def models_of(build: Callable[[], nn.Module], diffs: Mapping[str, SparseDiff]) -> dict[str | None, dict[str, Tensor]]:
    """Name of each diff, and None for none -> tensors of a fresh model with it applied."""
    found: dict[str | None, dict[str, Tensor]] = {None: snapshot(build())}
    for name, diff in diffs.items():
        diff.apply(model := build())
        found[name] = snapshot(model)
    return found


def holds(bank: TaskBank) -> set[str]:
    """Tasks and stacks that are ready in memory."""
    return {name for name, one in bank.memory().tasks.items() if one.positions or one.whole}
