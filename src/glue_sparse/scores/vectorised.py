"""Gradients of all examples at once by `torch.func`: for operations without a rule, where it can vectorise them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from transformers import PreTrainedModel

from glue_sparse.core.batches import Batch, batch_size
from glue_sparse.scores.losses import SingleLosses

_CHUNK_ENTRIES = 1 << 26  # of gradients held at once


class _Losses(nn.Module):
    """A model together with its losses, so that `functional_call` can give it other parameters."""

    def __init__(self, model: nn.Module, losses: Callable[[nn.Module, Batch], Iterable[Tensor]]):
        super().__init__()
        self.model, self.losses = model, losses

    def forward(self, batch: Batch) -> Tensor:
        """[number of losses]"""
        with SingleLosses():
            return torch.stack(list(self.losses(self.model, batch)))


def gradients_of_each(
    model: nn.Module, names: Iterable[str], batch: Batch, losses: Callable[[nn.Module, Batch], Iterable[Tensor]]
) -> Iterator[dict[str, Tensor]]:
    """Gradients of the named parameters, [examples, losses, *shape], for a part of the batch at a time.

    Raises:
        RuntimeError: `torch.func` cannot vectorise an operation of this model.
    """
    size, whole = batch_size(batch), _Losses(model, losses)
    parameters = {f"model.{name}": model.get_parameter(name).detach() for name in names}
    tensors = {key: x for key, x in batch.items() if isinstance(x, Tensor) and x.dim() and len(x) == size}
    rest = {key: x for key, x in batch.items() if key not in tensors}

    def of_one(values: dict[str, Tensor], one: dict[str, Tensor]) -> Tensor:
        batch_of_one = {**rest, **{key: x.unsqueeze(0) for key, x in one.items()}}
        return functional_call(whole, values, (batch_of_one,))

    chunk = max(1, _CHUNK_ENTRIES // sum(x.numel() for x in parameters.values()))
    for start in range(0, size, chunk):
        some = {key: x[start : start + chunk] for key, x in tensors.items()}
        with _plain_attention(model):
            found = vmap(jacrev(of_one), in_dims=(None, 0))(parameters, some)
        yield {name.removeprefix("model."): gradient.detach() for name, gradient in found.items()}


@contextmanager
def _plain_attention(model: nn.Module) -> Iterator[None]:
    """Within the block attention is made of products: the fused one looks at values of a mask, which vmap cannot."""
    config = getattr(model, "config", None)
    before = getattr(config, "_attn_implementation", None)
    if not isinstance(model, PreTrainedModel) or before in (None, "eager"):
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
