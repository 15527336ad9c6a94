"""A diff is written into the tensors of its base, and taken out again bit for bit."""

import torch
from torch import Tensor

from glue_sparse.core.parametrization import read_entries, write_entries
from glue_sparse.diffs.restoring import Stored


def replaced(diff: Stored, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of what `put` would write over: the entries of a masked tensor, or all where the others become zero."""
    found = {name: tensors[name].detach().clone() for name in diff.whole}
    for name, indices in diff.indices.items():
        weight = tensors[name]
        kept = indices.long().to(weight.device)
        found[name] = weight.detach().clone() if diff.info.inactive == "zero" else read_entries(weight, kept)
    return found


def put(diff: Stored, tensors: dict[str, Tensor]) -> None:
    """Write the values of a diff, which has been checked, in place."""
    for name, indices in diff.indices.items():
        weight = tensors[name]
        if diff.info.inactive == "zero":
            weight.data.zero_()
        weight.data = weight.data.contiguous()
        write_entries(weight, indices.long().to(weight.device), diff.values[name])
    for name, tensor in diff.whole.items():
        tensors[name].data.copy_(tensor)
    torch.clear_autocast_cache()  # casts of what the weights were, within one block of autocast


def put_back(diff: Stored, tensors: dict[str, Tensor], old: dict[str, Tensor]) -> None:
    """Undo `put` with what `replaced` gave before it."""
    for name, before in old.items():
        if name in diff.whole or diff.info.inactive == "zero":
            tensors[name].data.copy_(before)
        else:
            write_entries(tensors[name], diff.indices[name].long().to(tensors[name].device), before)
    torch.clear_autocast_cache()
