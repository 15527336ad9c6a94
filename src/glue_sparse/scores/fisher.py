"""Diagonal Fisher information: squared gradients of single examples, summed."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from glue_sparse.core import ranks
from glue_sparse.core.batches import Batch, Examples, batch_size, evaluating, example, on_device
from glue_sparse.core.masks import Scores
from glue_sparse.core.randomness import seeded
from glue_sparse.core.recompute import layers
from glue_sparse.core.shards import is_sharded
from glue_sparse.scores.by_rules import Losses
from glue_sparse.scores.labelled import labelled, with_loss
from glue_sparse.scores.losses import SingleLosses
from glue_sparse.scores.per_example import PerExample
from glue_sparse.scores.scores import on_shards
from glue_sparse.scores.sharded_sums import sharded_sums
from glue_sparse.scores.sums import Sums

Estimator = Literal["label", "expected", "sampled"]
_DRAWN = "drawn_label"
"""Key of a batch under which a label drawn from the model stands."""


@on_shards
def fisher(
    model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch], *, estimator: Estimator = "label",
    power: Literal["square", "absolute"] = "square", seed: int = 0, progress: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Scores:  # fmt: skip
    """Diagonal Fisher information, summed over examples (Sung et al., 2021, arXiv 2111.09839, section 3).

    Gradients are of single examples, in eval mode; the model, its mode, `.grad` and global random state stay. Memory: a
    number for each entry, and one tensor's gradients. After `activation_checkpointing_enable()` examples are done one
    at a time and layers recomputed, in eval mode too: slower, with the activations of a single layer. On a model that
    `fully_shard` has cut each rank does its examples so, for `label` alone, and gets the sums of all for its part.

    Args:
        model: any whose `forward` returns a loss.
        names: of the parameters to score.
        batches: dicts for `model(**batch)`, which returns a loss (and logits, but for `label`); or `Examples`.
        estimator: `label` uses the data set's label and the loss that is trained (the empirical Fisher), `expected`
            the exact expectation over the model's classes, `sampled` one label drawn from the model per example. An
            example whose labels are all -100 does not count for `label`.
        power: square of each gradient, or its absolute value.
        seed: for drawn labels.
        progress: show a progress bar, on the first rank.
        dtype: in which float32 sums are kept between batches; rounded stochastically to `torch.bfloat16`.
    Returns:
        Parameter name -> a number of this type per entry, at least 0, in the tensor's shape.
    Raises:
        ValueError: an estimator other than `label` on a model without classes, or on a sharded one.
    """
    given = with_loss(model, batches)
    shown = tqdm(_in_batches(given), desc="Fisher", unit="batch", disable=not (progress and ranks.is_first()))
    if is_sharded(model):
        return _on_shards(model, names, given, shown, estimator, power, dtype)
    totals, raised = Sums.zeros(model, names, dtype), torch.square if power == "square" else torch.abs
    summed = PerExample(
        model, totals, raised, _losses_of(estimator, given, power), estimator != "label", bool(layers(model))
    )
    with evaluating(model), torch.enable_grad():
        for step, batch in enumerate(shown):
            summed.add(_prepared(on_device(batch, model), given.label_names, model, estimator, seed, step))
    return totals.tensors


def _in_batches(given: Examples) -> Iterable[Batch]:
    """Sums of single examples depend on no batch."""
    return given.batches if given.by_tokens is None else given.by_tokens


def _on_shards(
    model: nn.Module, names: tuple[str, ...], given: Examples, batches: Iterable[Batch], estimator: Estimator,
    power: str, dtype: torch.dtype,
) -> Scores:  # fmt: skip
    if estimator != "label":
        raise ValueError(f"the `{estimator}` Fisher cannot be computed on shards of a model: use the `label` Fisher, "
                         "or choose on the whole model before it is sharded")  # fmt: skip
    raised = Tensor.square_ if power == "square" else Tensor.abs_
    singly = _one_by_one(batches, given.label_names)
    return sharded_sums(model, names, singly, partial(_single_loss, given=given), dtype, raised)


def _one_by_one(batches: Iterable[Batch], label_names: tuple[str, ...]) -> Iterator[Batch]:
    """Examples that have a label, as batches of one."""
    for batch in batches:
        batch = labelled(batch, label_names)
        yield from (example(batch, i) for i in range(batch_size(batch)))


def _single_loss(model: nn.Module, batch: Batch, *, given: Examples) -> Tensor:
    with SingleLosses():
        return given.loss(model, batch)


def _losses_of(estimator: Estimator, given: Examples, power: str) -> Losses:
    """What to differentiate."""
    if estimator == "label":
        return lambda model, batch: [given.loss(model, batch)]
    return partial(_expected_losses, power=power) if estimator == "expected" else _drawn_label_losses


def _prepared(
    batch: Batch, label_names: tuple[str, ...], model: nn.Module, estimator: Estimator, seed: int, step: int
) -> Batch:
    """The examples that count, with the labels they count by."""
    if estimator == "label":
        return labelled(batch, label_names)
    batch = _without(batch, label_names)
    if estimator == "sampled":
        batch[_DRAWN] = _sample_labels(model, batch, seeded(seed, "fisher label", step))
    return batch


def _without(batch: Batch, label_names: tuple[str, ...]) -> Batch:
    return {key: value for key, value in batch.items() if key not in label_names}


def _expected_losses(model: nn.Module, batch: Batch, *, power: str) -> list[Tensor]:
    """One loss per class y, weighted so that the powers of its gradients come out weighted by p(y|x)."""
    log_p = _log_probabilities(model, batch)
    p = log_p.detach().exp()
    weight = p.sqrt() if power == "square" else p
    return [-(weight[:, y] * log_p[:, y]).sum() for y in range(log_p.shape[1])]


def _drawn_label_losses(model: nn.Module, batch: Batch) -> list[Tensor]:
    log_p = _log_probabilities(model, _without(batch, (_DRAWN,)))
    return [-log_p.gather(1, batch[_DRAWN].unsqueeze(1)).sum()]


def _sample_labels(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
    with torch.no_grad():
        p = _log_probabilities(model, batch).exp().cpu()
    return torch.multinomial(p, 1, generator=generator).squeeze(1).to(next(model.parameters()).device)


def _log_probabilities(model: nn.Module, batch: Batch) -> Tensor:
    output = model(**batch)
    logits = output.get("logits") if isinstance(output, dict) else output[-1]
    problem = getattr(getattr(model, "config", None), "problem_type", None)
    if logits is None or logits.dim() != 2 or logits.shape[1] < 2 or problem == "regression":
        raise ValueError(
            "this model has no classes to take an expectation over (a regression, answer spans, or no [examples, "
            "classes] logits): use the `label` Fisher"
        )
    return F.log_softmax(logits.float(), dim=-1)
