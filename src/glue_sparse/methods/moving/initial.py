"""New random values for sparse tensors: truncated normal or Glorot, as functions of the seed and the tensor's name."""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from glue_sparse.core.active import active_tensors
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.options import Initial
from glue_sparse.core.parametrization import original, read_entries, write_entries
from glue_sparse.core.randomness import seeded
from glue_sparse.writing.words import check_one_of

WEIGHT_STD = 0.02
"""Of BERT's weights before their normal distribution is cut at two standard deviations, which leaves 0.0176."""


@torch.no_grad()
def redraw(model: nn.Module, initial: Initial, seed: int, names: Sequence[str] | None = None) -> None:
    """Draw the weights of a random network's sparse tensors anew (Dietrich et al., 2021, arXiv 2108.06277, figure 9).

    `truncated_normal` has standard deviation 0.02 and is cut at 0.04, as BERT's released code has it; `glorot` is
    uniform within sqrt(6 / (fan_in + fan_out)) with the fans of the dense layer. `sparsify.keep_variance` rescales what
    is left, afterwards. Where inactive entries are zero only the active ones get a value. Where they are frozen all
    do, and the tensors belong to another base than before: before a diff of it can be put into the old base, draw the
    same tensors there.

    Args:
        model: with active entries, or plain; changed in place, before it trains.
        names: of the tensors, by default those with active entries.
    Raises:
        ValueError: an unknown distribution, or a vector, which has no fans.
    """
    check_one_of("initial distribution", initial, get_args(Initial))
    held = dict(active_tensors(model))
    for name in held if names is None else names:
        weight = original(model, name)
        drawn = _draw(model, name, weight.shape, initial, seed).to(weight.device)
        if name not in held:
            weight.data.copy_(drawn)
            continue
        entries = held[name]
        values = read_entries(drawn, entries.indices)
        entries.values.data.copy_(values)
        if entries.inactive == "frozen":
            weight.data.copy_(drawn)
            entries.base_digest = tensor_digest(weight)
            entries.base_values = read_entries(weight, entries.indices)
        else:
            write_entries(weight, entries.indices, values)


def _draw(model: nn.Module, name: str, shape: torch.Size, initial: Initial, seed: int) -> Tensor:
    """float32 values for a whole tensor, on the CPU."""
    drawn, generator = torch.empty(shape), seeded(seed, "init", name)
    if initial == "truncated_normal":
        return nn.init.trunc_normal_(drawn, std=WEIGHT_STD, a=-2 * WEIGHT_STD, b=2 * WEIGHT_STD, generator=generator)
    if len(shape) < 2:
        raise ValueError(f"{name} has shape {tuple(shape)}, and glorot needs matrices: use truncated_normal")
    is_stack = hasattr(model.get_submodule(name.rpartition(".")[0]), "is_transposed")  # fused experts
    for matrix in drawn if is_stack else (drawn,):
        nn.init.xavier_uniform_(matrix, generator=generator)
    return drawn
