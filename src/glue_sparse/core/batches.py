"""Batches of examples: their size, some of them, the loss they train by, and where and how a model sees them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from glue_sparse.core.randomness import chance_kept

Batch = dict[str, Any]
IGNORED = -100
"""The label that losses of PyTorch and transformers do not count, unless they are told of another."""


@dataclass(frozen=True)
class Examples:
    """Batches of training examples together with the loss that they are trained by; a score may look at both.

    Attributes:
        loss: (model, batch) -> scalar.
        label_names: keys of a batch that are labels.
        by_tokens: the same examples in batches of about as many tokens, which take no more memory: quicker, for what
            depends on no batch but on its examples; none where there are no such.
    """

    batches: Iterable[Batch]
    loss: Callable[[nn.Module, Batch], Tensor]
    label_names: tuple[str, ...]
    by_tokens: Iterable[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)  # pyright: ignore[reportArgumentType]


def batch_size(batch: Batch) -> int:
    """Examples in a batch: the first dimension that most of its tensors have.

    Of several, one that is not 1, as of positions that are the same for all examples, and then that of the tensor with
    the most dimensions.

    Raises:
        ValueError: no tensor has a dimension.
    """
    tensors = [value for value in batch.values() if isinstance(value, Tensor) and value.dim()]
    if not tensors:
        raise ValueError("a batch has no tensor of examples: give the model's inputs as tensors, examples first")
    sizes = Counter(len(tensor) for tensor in tensors)
    return len(max(tensors, key=lambda tensor: (sizes[len(tensor)], len(tensor) != 1, tensor.dim())))


def example(batch: Batch, i: int) -> Batch:
    """Example `i` as a batch of one."""
    return chosen_examples(batch, slice(i, i + 1))


def chosen_examples(batch: Batch, chosen: slice | Sequence[int] | Tensor) -> Batch:
    """These examples as a batch."""
    size = batch_size(batch)
    return {k: v[chosen] if isinstance(v, Tensor) and v.dim() and len(v) == size else v for k, v in batch.items()}


def loss_of(output: Any) -> Tensor:
    """The loss among what a model returns: a mapping that has one, or a tuple that begins with it."""
    return output["loss"] if isinstance(output, dict) else output[0]


def on_device(batch: Batch, model: nn.Module) -> Batch:
    """The batch with its tensors where the model is."""
    device = next(model.parameters()).device
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode inside the block; afterwards every module is in the mode it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """To try something on a model: `evaluating`, and random numbers go on afterwards as if nothing had been."""
    with chance_kept(), evaluating(model):
        yield


@contextmanager
def only_these_require_grad(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, nn.Parameter]]:
    """Within the block only the named parameters require a gradient; yields them."""
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    wanted = {name: model.get_parameter(name) for name in names}
    chosen = {id(parameter) for parameter in wanted.values()}
    try:
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in chosen)
        yield wanted
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])
