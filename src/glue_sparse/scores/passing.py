"""Gradients of a backward pass, taken one tensor at a time: those of all weights at once would be a second model."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from glue_sparse.core.batches import evaluating, only_these_require_grad
from glue_sparse.core.shards import local

Take = Callable[[str, Tensor], None]
"""(name of a parameter, its gradient)."""


@contextmanager
def differentiating(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, nn.Parameter]]:
    """Eval mode, with a gradient for those named parameters alone that are not frozen; yields these."""
    wanted = [name for name in names if model.get_parameter(name).requires_grad]
    with evaluating(model), torch.enable_grad(), only_these_require_grad(model, wanted) as parameters:
        yield parameters


@contextmanager
def grads_kept(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Afterwards every parameter has the `.grad` that it had."""
    held = [(parameter, parameter.grad) for parameter in parameters]
    try:
        yield
    finally:
        for parameter, grad in held:
            parameter.grad = grad


@contextmanager
def taken_as_they_come(parameters: Mapping[str, nn.Parameter], take: Take) -> Iterator[None]:
    """Within the block each gradient is handed to `take` when it is there, and dropped."""

    def arrive(parameter: Tensor, name: str) -> None:
        _hand_on(name, parameter, take)

    with ExitStack() as stack:
        for name, parameter in parameters.items():
            parameter.grad = None
            hook = parameter.register_post_accumulate_grad_hook(partial(arrive, name=name))
            stack.callback(hook.remove)
        yield


def take_whole(loss: Tensor, parameters: Mapping[str, nn.Parameter], take: Take, retain_graph: bool = False) -> None:
    """Make the backward pass of a loss, and hand each parameter's whole gradient to `take`, as it comes where it can.

    Layers that are recomputed by passes inside of this one (`use_reentrant`) hand in the gradient of a tensor that
    several of them use in parts, so all are kept until the end then.
    """
    # `backward` and not `grad`, which recomputed layers refuse
    if not _has_inner_passes(loss):
        with taken_as_they_come(parameters, take):
            loss.backward(retain_graph=retain_graph)
        return
    for parameter in parameters.values():
        parameter.grad = None
    loss.backward(retain_graph=retain_graph)
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            _hand_on(name, parameter, take)


def _hand_on(name: str, parameter: Tensor, take: Take) -> None:
    gradient, parameter.grad = parameter.grad, None
    assert gradient is not None
    gradient = local(gradient)
    take(name, gradient.to_dense() if gradient.is_sparse else gradient)


def _has_inner_passes(loss: Tensor) -> bool:
    stack, seen = [get_gradient_edge(loss).node], set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        if node.name().startswith("CheckpointFunction"):
            return True
        seen.add(node)
        stack += [following for following, _ in node.next_functions if following is not None]
    return False
