"""Scores that look at what flows into a weight, not at the weight alone."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from glue_sparse.core.batches import Batch, Examples, evaluating, on_device
from glue_sparse.core.masks import Scores


def wanda(model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch]) -> Scores:
    """(|w| * norm of the weight's input over all tokens)^2 (Wanda: Sun et al., 2023, arXiv 2306.11695, equation 1).

    Squared, which keeps the order, so that the scores of several ranks may be added. All layers are scored on the dense
    model at once; the authors prune layer by layer and score each behind the pruned ones. Padding is left out where a
    layer's inputs have the shape of the attention mask, flattened or not.

    Args:
        names: weights of linear layers, or of `Conv1D`.
        batches: dicts for `model(**batch)`; they need no labels.
    Raises:
        ValueError: another kind of tensor, or no batch.
    """
    modules = {name: model.get_submodule(name.rpartition(".")[0]) for name in names}
    for name, module in modules.items():
        if not isinstance(module, nn.Linear | Conv1D):
            raise ValueError(f"wanda scores weights of linear layers, and {name} is none: choose others by `tensors`")
    squares = {name: _SquaredInputs(module) for name, module in modules.items()}
    try:
        with evaluating(model), torch.no_grad():
            for batch in batches:
                batch = on_device(batch, model)
                for inputs in squares.values():
                    inputs.tokens = batch.get("attention_mask")
                if isinstance(batches, Examples):  # a model may take no labels
                    batches.loss(model, batch)
                else:
                    model(**batch)
    finally:
        for inputs in squares.values():
            inputs.handle.remove()
    return {name: squares[name].times(model.get_parameter(name)) for name in names}


class _SquaredInputs:
    """Sums the squares of a layer's inputs over all tokens, while its hook is there."""

    def __init__(self, module: nn.Module):
        self.sums: Tensor | None = None
        self.tokens: Tensor | None = None
        """[examples, tokens] 1 for a token, 0 for padding, where the batch says so."""
        self.input_axis = -2 if isinstance(module, Conv1D) else -1
        self.handle = module.register_forward_pre_hook(self._add)

    def _add(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        x = arguments[0].detach().float()
        if self.tokens is not None and x.shape[:-1] in (self.tokens.shape, self.tokens.flatten().shape):
            x = x[self.tokens.bool().view(x.shape[:-1])]
        found = x.flatten(0, -2).square().sum(0)
        self.sums = found if self.sums is None else self.sums + found

    def times(self, weight: Tensor) -> Tensor:
        if self.sums is None:
            raise ValueError("an activation-aware score needs data that passes through every layer")
        along_inputs = self.sums if self.input_axis == -1 else self.sums.unsqueeze(1)
        return weight.detach().float().square() * along_inputs
