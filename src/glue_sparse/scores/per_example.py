"""Per-example gradients of a batch, squared or absolute and summed over examples, from one backward pass.

Each kind of layer has a short rule that rebuilds every example's gradient from the layer's input and the gradient of
its output (the idea is Goodfellow, 2015, arXiv 1510.01799). What has no rule is done one example at a time.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from glue_sparse.core.batches import Batch, batch_size, example

logger = logging.getLogger(__name__)

Losses = Callable[[nn.Module, Batch], Iterable[Tensor]]
"""Scalar losses of a batch, each the sum of one loss per example; they share a graph."""
Power = Callable[[Tensor], Tensor]
"""Square or absolute value: both satisfy power(a * b) = power(a) * power(b), which the rules use."""

_CHUNK_ENTRIES = 1 << 22  # per-example gradients held at once on a GPU; on a CPU one at a time stays in its cache


def _add_products(total: Tensor, left: Tensor, right: Tensor, power: Power) -> None:
    """total += sum_n power(left_n^T right_n), with left [n, t, a], right [n, t, b], total [a, b]."""
    if left.shape[1] == 1:
        total.addmm_(power(left[:, 0]).T, power(right[:, 0]))
        return
    chunk = max(1, _CHUNK_ENTRIES // total.numel()) if total.is_cuda else 1
    for some_left, some_right in zip(left.split(chunk), right.split(chunk), strict=True):
        gradient = torch.bmm(some_left.transpose(1, 2), some_right)
        total += power(gradient).sum(0) if len(gradient) > 1 else power(gradient[0])


def _tokens(x: Tensor) -> Tensor:
    """[n, ..., d] -> [n, t, d]."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _linear(module: nn.Module, x: Tensor, grad: Tensor, totals: dict[str, Tensor], power: Power) -> None:
    x, grad = _tokens(x), _tokens(grad)
    if "bias" in totals:
        totals["bias"] += power(grad.sum(1)).sum(0)
    if "weight" in totals:
        left, right = (x, grad) if isinstance(module, Conv1D) else (grad, x)
        _add_products(totals["weight"], left, right, power)


def _embedding(module: nn.Module, ids: Tensor, grad: Tensor, totals: dict[str, Tensor], power: Power) -> None:
    assert isinstance(module, nn.Embedding)
    num_examples, size = grad.shape[0], module.num_embeddings
    ids = ids.expand(num_examples, *ids.shape[1:]).reshape(num_examples, -1)
    if module.padding_idx is not None:
        grad = grad * (ids != module.padding_idx).view(*grad.shape[:-1], 1)
    row = ids + size * torch.arange(num_examples, device=ids.device).unsqueeze(1)
    rows, inverse = row.flatten().unique(return_inverse=True)
    gradient = grad.new_zeros(len(rows), grad.shape[-1]).index_add_(0, inverse, grad.reshape(-1, grad.shape[-1]))
    totals["weight"].index_add_(0, rows % size, power(gradient))


def _layer_norm(module: nn.Module, x: Tensor, grad: Tensor, totals: dict[str, Tensor], power: Power) -> None:
    assert isinstance(module, nn.LayerNorm)
    normalized = F.layer_norm(x, module.normalized_shape, eps=module.eps)
    _add_affine(normalized.flatten(1, -len(module.normalized_shape) - 1) if x.dim() > 2 else normalized.unsqueeze(1),
                grad.reshape(grad.shape[0], -1, *module.normalized_shape), totals, power)


def _batch_norm(module: nn.Module, x: Tensor, grad: Tensor, totals: dict[str, Tensor], power: Power) -> None:
    assert isinstance(module, nn.modules.batchnorm._BatchNorm)
    normalized = F.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)
    places = (x.shape[0], x.shape[1], -1)
    _add_affine(normalized.reshape(places).transpose(1, 2), grad.reshape(places).transpose(1, 2), totals, power)


def _add_affine(normalized: Tensor, grad: Tensor, totals: dict[str, Tensor], power: Power) -> None:
    """Scale and shift of a normalisation: [n, places, ...] -> sums over places, then over examples."""
    if "weight" in totals:
        totals["weight"] += power((grad * normalized).sum(1)).sum(0)
    if "bias" in totals:
        totals["bias"] += power(grad.sum(1)).sum(0)


def _convolution(module: nn.Module, x: Tensor, grad: Tensor, totals: dict[str, Tensor], power: Power) -> None:
    assert isinstance(module, nn.modules.conv._ConvNd)
    if "bias" in totals:
        totals["bias"] += power(grad.flatten(2).sum(2)).sum(0)
    if "weight" in totals:
        settings = (module.stride, module.padding, module.dilation, module.transposed, module.output_padding)
        for i in range(len(x)):
            gradient = torch.ops.aten.convolution_backward(
                grad[i : i + 1], x[i : i + 1], module.weight.float(), None, *settings, module.groups,
                [False, True, False],
            )[1]  # fmt: skip
            totals["weight"] += power(gradient)


def _rule(module: nn.Module) -> Callable[..., None] | None:
    """The rule for a module, or None where it has none."""
    if isinstance(module, nn.Linear | Conv1D):
        return _linear
    if isinstance(module, nn.LayerNorm):
        return _layer_norm
    if isinstance(module, nn.Embedding) and module.max_norm is None and not module.scale_grad_by_freq:
        return _embedding
    if isinstance(module, nn.modules.conv._ConvNd) and module.padding_mode == "zeros":
        return None if isinstance(module.padding, str) else _convolution
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
        return _batch_norm
    return None


class PerExample:
    """Adds powers of per-example gradients to `totals`, batch by batch; parameters and their `.grad` stay as they are.

    Args:
        model: in the mode the gradients are wanted in, eval() for dropout and batch normalisation.
        totals: parameter name -> float32 sums, changed in place.
        power: `torch.square` or `torch.abs`.
        losses: what to differentiate.
    """

    def __init__(self, model: nn.Module, totals: dict[str, Tensor], power: Power, losses: Losses):
        self.model, self.totals, self.power, self.losses = model, totals, power, losses
        self.ruled: dict[nn.Module, dict[str, Tensor]] | None = None
        self.single: list[str] = []

    def add(self, batch: Batch, *, one_by_one: bool = False) -> None:
        """Add one batch. `one_by_one` when its loss is not a sum over examples (token-level labels)."""
        if one_by_one:
            self._add_singly(batch, list(self.totals))
            return
        if self.ruled is None:
            self.ruled, self.single = self._plan(batch)
        if self.ruled:
            self._add_by_rules(batch, self.ruled)
        if self.single:
            self._add_singly(batch, self.single)

    def _add_by_rules(self, batch: Batch, ruled: dict[nn.Module, dict[str, Tensor]]) -> None:
        with ExitStack() as stack:
            stack.enter_context(_requires_grad(self.model, ()))
            anchors: list[Tensor] = []
            for module, totals in ruled.items():
                stack.callback(module.register_forward_hook(self._hook(totals, batch_size(batch), anchors)).remove)
            losses = list(self.losses(self.model, batch))
            for i, loss in enumerate(losses):
                torch.autograd.backward(loss, inputs=anchors, retain_graph=i + 1 < len(losses))

    def _hook(self, totals: dict[str, Tensor], num_examples: int, anchors: list[Tensor]) -> Callable:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if len(output) != num_examples:  # a table looked up once for the whole batch, such as positions
                output = output.expand(num_examples, *output.shape[1:])
            if not output.requires_grad:
                output = output.detach().requires_grad_()
                anchors.append(output)
            x, rule = args[0].detach(), _rule(module)
            assert rule is not None
            x = x.float() if x.is_floating_point() else x
            output.register_hook(lambda grad: rule(module, x, grad.detach().float(), totals, self.power))
            return output

        return hook

    def _plan(self, batch: Batch) -> tuple[dict[nn.Module, dict[str, Tensor]], list[str]]:
        """Modules whose parameters a rule covers in this model, and the names of all other parameters."""
        num_examples, calls = batch_size(batch), {}

        def count(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            fits = isinstance(output, Tensor) and bool(args) and isinstance(args[0], Tensor)
            fits = fits and (len(output) == len(args[0]) == num_examples
                             or (isinstance(module, nn.Embedding) and len(output) == 1))  # fmt: skip
            calls[module] = calls.get(module, 0) + (1 if fits else 2)

        with ExitStack() as stack, torch.no_grad():
            for module in self.model.modules():
                stack.callback(module.register_forward_hook(count).remove)
            list(self.losses(self.model, batch))
        held_twice = _tied(self.model)
        ruled: dict[nn.Module, dict[str, Tensor]] = {}
        single = []
        for name, total in self.totals.items():
            module_name, _, attribute = name.rpartition(".")
            module = self.model.get_submodule(module_name)
            used_once = calls.get(module, 0) <= 1 and name not in held_twice
            if used_once and _rule(module) and attribute in ("weight", "bias"):
                ruled.setdefault(module, {})[attribute] = total
            else:
                single.append(name)
        if single:
            logger.warning("no per-example rule for %s: done one example at a time", ", ".join(single))
        return {module: totals for module, totals in ruled.items() if module in calls}, single

    def _add_singly(self, batch: Batch, names: list[str]) -> None:
        with _requires_grad(self.model, names) as parameters:
            for i in range(batch_size(batch)):
                losses = list(self.losses(self.model, example(batch, i)))
                for j, loss in enumerate(losses):
                    gradients = torch.autograd.grad(
                        loss, parameters, allow_unused=True, retain_graph=j + 1 < len(losses)
                    )
                    for name, gradient in zip(names, gradients, strict=True):
                        if gradient is not None:
                            self.totals[name] += self.power(gradient.float())


def _tied(model: nn.Module) -> set[str]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name for group in names.values() if len(group) > 1 for name in group}


@contextmanager
def _requires_grad(model: nn.Module, names: Iterable[str]) -> Iterator[list[nn.Parameter]]:
    """Within the block only the named parameters require a gradient; yields them."""
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    wanted = {name: model.get_parameter(name) for name in names}
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in wanted)
        yield list(wanted.values())
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])
