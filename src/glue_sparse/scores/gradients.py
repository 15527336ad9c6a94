"""Scores by the gradient of a batch: how much the loss of all examples together changes with an entry.

They are among those that Liu et al. (2025, arXiv 2412.13488) compare. g is the gradient of the mean loss over all
examples, in which those of single examples may cancel, as their squares in the Fisher information cannot. All leave
out the factor 1/n of the mean, which changes no order. Memory: a number per scored entry, to which the gradients of a
batch are added while its backward pass runs, one tensor at a time; the scores themselves are made from it when they are
read. Layers for which `activation_checkpointing_enable()` was called are recomputed, in eval mode too.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from glue_sparse.core import ranks
from glue_sparse.core.batches import Batch, Examples, batch_size, on_device
from glue_sparse.core.masks import Scores
from glue_sparse.core.pieces import pieces_of
from glue_sparse.core.recompute import recomputed
from glue_sparse.core.shards import is_sharded, local
from glue_sparse.scores.labelled import labelled, with_loss
from glue_sparse.scores.passing import differentiating, grads_kept, taken_as_they_come
from glue_sparse.scores.scores import Computed, Staged, on_shards
from glue_sparse.scores.sharded_sums import sharded_sums
from glue_sparse.scores.sums import Sums


@on_shards
def gradient(
    model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch], *, progress: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Scores:  # fmt: skip
    """|g| (Liu et al., 2025, arXiv 2412.13488, "gradient").

    Args:
        model: any whose `forward` returns a loss; left as it is, with its mode and its `.grad`.
        names: of the parameters to score; one that requires no gradient has 0.
        batches: dicts for `model(**batch)`, or `Examples` with the loss that they are trained by. A batch weighs by its
            examples, those without any label (-100) left out.
        progress: show a progress bar, on the first rank.
        dtype: in which sums are kept between batches, `torch.float32` or `torch.bfloat16`, to which they are rounded
            stochastically; they are added in float32.
    Returns:
        Parameter name -> a float32 number per entry, at least 0, in the tensor's shape.
    """
    return _of_gradient(model, names, batches, progress, dtype, lambda w, g: g.abs())


@on_shards
def saliency(
    model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch], *, progress: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Scores:  # fmt: skip
    """|w g|, the sensitivity of SNIP (Lee et al., 2019, arXiv 1810.02340), which divides by the sum of all.

    See `gradient` for `model`, `names`, `batches`, `progress`, `dtype` and the result.
    """
    return _of_gradient(model, names, batches, progress, dtype, lambda w, g: (w * g).abs())


@on_shards
def taylor(
    model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch], *, progress: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Scores:  # fmt: skip
    """(w g)^2, the first order of the change of the loss without an entry (Molchanov et al., 2019, arXiv 1906.10771).

    Its order is that of `saliency`, of which it is the square: both choose the same entries of the same examples.
    See `gradient` for `model`, `names`, `batches`, `progress`, `dtype` and the result.
    """
    return _of_gradient(model, names, batches, progress, dtype, lambda w, g: (w * g).square())


@on_shards
def skeletonization(
    model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch], *, progress: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Scores:  # fmt: skip
    """-w g: by how much the loss would rise, to first order, without an entry (Mozer and Smolensky, 1989).

    Signed: the worst are those without which the loss would fall. They score units; with a gate per weight it is -w g,
    as Tanaka et al. (2020, arXiv 2006.05467) write it.
    See `gradient` for `model`, `names`, `batches`, `progress`, `dtype` and the result.
    """
    return _of_gradient(model, names, batches, progress, dtype, lambda w, g: -w * g)


def _of_gradient(
    model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch], progress: bool, dtype: torch.dtype,
    formula: Callable[[Tensor, Tensor], Tensor],
) -> Scores:  # fmt: skip
    """Scores by a formula of (weights, gradient); ranks add the gradients."""
    return Staged(
        summed(model, names, batches, progress, dtype), lambda sums: with_weights(model, names, sums, formula)
    )


def with_weights(
    model: nn.Module, names: tuple[str, ...], sums: Scores, formula: Callable[[Tensor, Tensor], Tensor]
) -> Scores:
    """A formula of (weights, sums), both float32, entry by entry, for a tensor or a piece of one at a time."""

    def of(name: str) -> Tensor:
        weight = local(model.get_parameter(name)).detach().float()
        return formula(weight, sums[name].to(weight.device).float())

    def in_pieces(name: str) -> tuple[torch.Size, Iterator[Tensor]]:
        weight = local(model.get_parameter(name))
        shape, parts = pieces_of({name: weight}, name)
        pairs = zip(parts, pieces_of({name: sums[name]}, name)[1], strict=True)
        return shape, (formula(w.float(), g.to(w.device).float()) for w, g in pairs)

    return Computed(names, of, in_pieces)


def summed(
    model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch], progress: bool,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:  # fmt: skip
    """The gradient of the summed loss of all examples, in eval mode, added in float32 and kept in `dtype`."""
    examples = with_loss(model, batches)
    if is_sharded(model):
        counted = _counted(model, examples, "Gradients", progress)
        return sharded_sums(model, names, counted, partial(_weighted_loss, examples=examples), dtype)
    totals = Sums.zeros(model, names, dtype)
    with (
        differentiating(model, names) as parameters, grads_kept(parameters.values()),
        taken_as_they_come(parameters, totals.add), recomputed(model),
    ):  # fmt: skip
        for loss in weighted_losses(model, examples, "Gradients", progress):
            loss.backward()  # not `grad`, which checkpointed layers refuse
    return totals.tensors


def weighted_losses(model: nn.Module, examples: Examples, title: str, progress: bool) -> Iterator[Tensor]:
    """The loss of each batch times its examples that have a label, so that their sum is that of all examples."""
    for batch in _counted(model, examples, title, progress):
        loss = _weighted_loss(model, batch, examples)
        if loss.requires_grad:
            yield loss


def _counted(model: nn.Module, examples: Examples, title: str, progress: bool) -> Iterator[Batch]:
    """Batches of the examples that have a label, those without any left out."""
    shown = tqdm(examples.batches, desc=title, unit="batch", disable=not (progress and ranks.is_first()))
    for batch in shown:
        batch = labelled(on_device(batch, model), examples.label_names)
        if batch_size(batch):
            yield batch


def _weighted_loss(model: nn.Module, batch: Batch, examples: Examples) -> Tensor:
    return batch_size(batch) * examples.loss(model, batch)
