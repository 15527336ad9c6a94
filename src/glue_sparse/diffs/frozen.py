"""What a diff says of tensors that were frozen while it trained, or are frozen in the model that it is put into."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glue_sparse.core.options import Inactive
from glue_sparse.core.parametrization import frozen_tensors
from glue_sparse.core.params import head_names


def frozen_head(model: nn.Module, head: Sequence[str] | None) -> dict[str, nn.Parameter]:
    """Frozen tensors of the head: a diff stores them all the same, since its base does not have them."""
    frozen = frozen_tensors(model)
    return {name: frozen[name] for name in (head_names(model) if head is None else head) if name in frozen}


def check(whole: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raise a ValueError where a diff holds another tensor in place of one of the base that is frozen in `model`."""
    own = head_names(model)
    for name, parameter in frozen_tensors(model).items():
        if name in whole and name not in own and not torch.equal(parameter.cpu(), whole[name]):
            raise ValueError(f"{name} is frozen, and this diff holds another one: call requires_grad_(True) on it")


def to_mask(
    parameters: Mapping[str, nn.Parameter], shapes: Mapping[str, Any], whole: Mapping[str, Tensor], inactive: Inactive
) -> dict[str, nn.Parameter]:
    """The parameters that need a mask to train on by a diff; of a pruned model those that were frozen need none.

    Raises:
        ValueError: a tensor of a pruned model was frozen and is not now: an empty mask would prune it, none would
            train it.
    """
    left = {name: parameter for name, parameter in parameters.items() if name not in whole}
    for name, parameter in left.items():
        if inactive == "zero" and name not in shapes and parameter.requires_grad:
            raise ValueError(f"{name} was frozen when this diff was trained: call requires_grad_(False) on it")
    return {name: parameter for name, parameter in left.items() if inactive == "frozen" or name in shapes}
