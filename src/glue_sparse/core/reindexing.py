"""Active entries and optimizers: `reindex` moves entries and carries their state; `take_over` hands them in."""

import logging
from functools import lru_cache

import torch
from torch import Tensor, nn

from glue_sparse.core import tiles
from glue_sparse.core.active import ActiveEntries, active_tensors
from glue_sparse.core.chosen import positions_of, shape_of
from glue_sparse.core.masks import Masks
from glue_sparse.core.options import Entrants
from glue_sparse.core.parametrization import original, read_entries, write_entries

logger = logging.getLogger(__name__)

_SCALES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "step_size")
"""Means of squared gradients, by which Adam and its kin divide, and Rprop's steps: zero is too much, or nothing."""


def reindex(
    model: nn.Module,
    masks: Masks,
    optimizer: torch.optim.Optimizer | None = None,
    entrants: Entrants = "mean",
) -> None:
    """Change which entries of attached tensors are active, between optimizer steps.

    An entrant starts from what the tensor holds, with optimizer state zero; a survivor keeps value and state; a
    leaver keeps its last value (`frozen`) or becomes zero (`zero`), and its state is dropped. Mean squared gradients
    of an entrant start at the survivors' mean: Adam counts steps per tensor, so zero would make the entrant's first
    steps up to 6.5 times as long as its learning rate. `entrants="zero"` has them zero all the same, as in the papers.

    Args:
        model: what `attach` changed; changed in place.
        masks: new masks of any of the attached tensors.
        optimizer: the optimizer that holds the values; its state is re-mapped, and values that had no active entry
            before join the first group.
        entrants: what an entrant's mean squared gradient starts from: the `mean` of the survivors', or `zero`.
    Raises:
        ValueError: a tensor that is not attached, a wrong shape, or tiles that are not whole; nothing is changed then.
    """
    attached = dict(active_tensors(model))
    for name in masks:
        if name not in attached:
            raise ValueError(f"{name} has no active entries to change")
        shape = shape_of(masks, name)
        if shape != original(model, name).shape:
            raise ValueError(f"the mask of {name} is {tuple(shape)}, not {tuple(original(model, name).shape)}")
        if attached[name].block_size > 1:
            tiles.gathered(masks[name], attached[name].block_size)
    if optimizer is not None:
        _check_state(optimizer)
    for name in masks:
        _reindex_one(attached[name], original(model, name), positions_of(masks, name), optimizer, entrants)


def take_over(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Put active entries where their tensors are in an optimizer that was built before they were attached.

    Raises:
        ValueError: it trains neither.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    attached = list(active_tensors(model))
    values = {id(original(model, name)): entries.values for name, entries in attached}
    for group in optimizer.param_groups:
        for tensor in group["params"]:
            if id(tensor) in values:
                optimizer.state.pop(tensor, None)
        swapped = [values.get(id(p), p) for p in group["params"]]
        # an optimizer that was built afterwards holds both: the tensors, which need no gradient, only leave
        group["params"] = [
            new for new, old in zip(swapped, group["params"], strict=True) if new is old or id(new) not in held
        ]
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    # tensors without an active entry have nothing to train; `reindex` adds them when they get one
    if not trained.issuperset(id(entries.values) for _, entries in attached if entries.values.requires_grad):
        raise ValueError("the optimizer does not train the active entries: build it from model.parameters()")


def _check_state(optimizer: torch.optim.Optimizer) -> None:
    for parameter, state in optimizer.state.items():
        for key, value in state.items() if isinstance(parameter, Tensor) else ():
            is_joint = isinstance(value, Tensor) and value.dim() > 0 and value.numel() > parameter.numel()
            if is_joint or isinstance(value, list):
                _announce(type(optimizer).__name__, key)


@lru_cache(maxsize=32)
def _announce(kind: str, key: str) -> None:
    """Once a process."""
    logger.warning("%s keeps %s for all entries together, which cannot follow those that move", kind, key)


def _reindex_one(
    entries: ActiveEntries,
    weight: Tensor,
    new: Tensor,
    optimizer: torch.optim.Optimizer | None,
    entrants: Entrants,
) -> None:
    entries.write(weight)
    old, new = entries.indices, new.to(weight.device)
    is_old, is_new = torch.isin(new, old), torch.isin(old, new)
    if entries.inactive == "zero":
        write_entries(weight, old[~is_new], torch.zeros((), device=weight.device))
    values = read_entries(weight, new).float()
    values[is_old] = entries.values.detach()[is_new]
    entries.move(new, values)
    if optimizer is None:
        return
    carry_over(optimizer, entries.values, is_old, is_new, entrants)
    if len(new) and not any(entries.values is p for group in optimizer.param_groups for p in group["params"]):
        optimizer.param_groups[0]["params"].append(entries.values)


def carry_over(
    optimizer: torch.optim.Optimizer, parameter: Tensor, survives: Tensor, remains: Tensor, entrants: Entrants = "mean"
) -> None:
    """Re-map an optimizer's state of a parameter whose first dimension has moved.

    Args:
        parameter: as it is now.
        survives: [now] bool, which of its rows were there before.
        remains: [before] bool, which of the rows before are there still.
        entrants: see `Entrants`.
    """
    if not survives.any():
        optimizer.state.pop(parameter, None)  # nothing to carry over: a fresh start, step count included
    for key, state in optimizer.state.get(parameter, {}).items():
        if isinstance(state, Tensor) and state.shape == (len(remains), *parameter.shape[1:]):
            moved = state.new_zeros(parameter.shape)
            if key in _SCALES and entrants == "mean":
                moved.fill_(state[remains].mean())
            moved[survives] = state[remains]
            optimizer.state[parameter][key] = moved
