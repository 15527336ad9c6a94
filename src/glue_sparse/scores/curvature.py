"""GraSP: what an entry is worth to the flow of gradients, by a product with the Hessian."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from glue_sparse.core.batches import Batch, Examples
from glue_sparse.core.masks import Scores
from glue_sparse.scores.gradients import summed, weighted_losses, with_weights
from glue_sparse.scores.labelled import with_loss
from glue_sparse.scores.passing import differentiating
from glue_sparse.scores.scores import Staged


def grasp(model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch], *, progress: bool = True) -> Scores:
    """w (H g): by how much the squared norm of the gradient would fall without an entry, up to a factor (GraSP).

    Wang et al. (2020, arXiv 2002.07376) define S = -w (H g), and *remove* the entries with the largest S. Here the
    largest score is kept, so it is -S, as in the code of Liu et al. (2025, arXiv 2412.13488). g is the gradient of the
    mean loss over all examples and H its Hessian, both of the scored tensors alone and of the same examples. Unlike in
    the code of both, logits are not divided by a temperature. Signed.

    Memory: a graph of a batch that can be differentiated twice, with attention computed from products, and two float32
    numbers per scored entry. The batches are kept, because they are read twice.
    See `gradient` for `model`, `names`, `batches`, `progress` and the result.
    """
    examples = with_loss(model, batches)
    kept = Examples(list(batches), examples.loss, examples.label_names)

    def product(gradients: Scores) -> Scores:
        return Staged(_hessian_times(model, gradients, kept, progress), worth)

    def worth(products: Scores) -> Scores:
        return with_weights(model, names, products, lambda w, hg: w * hg)

    return Staged(summed(model, names, kept, progress), product)


def _hessian_times(model: nn.Module, vector: Scores, examples: Examples, progress: bool) -> dict[str, Tensor]:
    """The product of the Hessian of the summed loss with a vector, summed batch by batch."""
    totals = {name: torch.zeros_like(model.get_parameter(name), dtype=torch.float32) for name in vector}
    # the other kernels of attention have no second derivative
    with differentiating(model, vector) as parameters, sdpa_kernel(SDPBackend.MATH):
        for loss in weighted_losses(model, examples, "Hessian", progress):
            for name, part in _product(loss, parameters, vector).items():
                totals[name] += part
    return totals


def _product(loss: Tensor, parameters: dict[str, nn.Parameter], vector: Scores) -> dict[str, Tensor]:
    """Hessian of a loss times a vector, by the gradient of (gradient . vector)."""
    found = torch.autograd.grad(loss, [*parameters.values()], create_graph=True, allow_unused=True)
    pairs = [(g, vector[name].to(g.device)) for name, g in zip(parameters, found, strict=True) if g is not None]
    flow = sum((g * v).sum() for g, v in pairs)
    if not isinstance(flow, Tensor) or not flow.requires_grad:  # a loss that is linear in all of them
        return {}
    products = torch.autograd.grad(flow, [*parameters.values()], allow_unused=True)
    return {name: part for name, part in zip(parameters, products, strict=True) if part is not None}
