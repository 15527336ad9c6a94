"""One optimizer step from several micro-batches, on several ranks, as if they were one batch: what each one weighs.

A model's loss is a mean: over labelled tokens, or over examples. The mean over a step's whole window is the sum of the
micro-batches' means, each times its share of the items. Trainer divides by their number instead, or hands
`num_items_in_batch` to any model that would take it, and many a model takes it and ignores it. Here the share is
counted, so it does not matter which of both a model does.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from glue_sparse.core import ranks
from glue_sparse.core.batches import Batch, batch_size, evaluating, example, on_device

logger = logging.getLogger(__name__)

Count = Callable[[Batch], Tensor]
"""A batch -> [] number of items that its loss is a mean over."""
Loss = Callable[[Batch], Tensor]
IGNORED = -100
"""The label that no loss of transformers counts."""


def count_examples(batch: Batch) -> Tensor:
    """Every example counts, but one whose only label says that it has none."""
    labels = _labels(batch)
    if labels is not None and labels.dim() == 1 and not labels.is_floating_point():
        return labels.ne(IGNORED).sum()
    sized = any(isinstance(value, Tensor) and value.dim() for value in batch.values())
    return torch.tensor(batch_size(batch) if sized else 1)


def count_labels(batch: Batch, first: int = 0) -> Tensor:
    """Labelled tokens; from position `first` on, where a loss shifts labels by itself and never asks for those before.

    Labels that are no integers, such as those of a regression, are counted by `count_examples`.
    """
    if isinstance(shifted := batch.get("shift_labels"), Tensor):
        return shifted.ne(IGNORED).sum()
    labels = _labels(batch)
    if labels is None or labels.dim() < 2 or labels.is_floating_point():
        return count_examples(batch)
    return labels[..., first:].ne(IGNORED).sum()


KINDS: tuple[Count, ...] = (count_labels, partial(count_labels, first=1), count_examples)
"""What the mean of a loss may be over, as far as micro-batches of the same step may hold different numbers of it."""


def mean_over(
    loss: Loss,
    model: nn.Module,
    batches: Sequence[Batch],
    otherwise: int = 0,
    everyones: Callable[[Any], list[Any]] = lambda own: [own],
) -> Count:
    """What a loss is a mean over, found by what it does.

    Two versions of an example, one with a label everywhere and one with labels at its first two positions, have losses
    of their own and one loss together. Together it is their mean weighted by the right counts, and not by wrong ones.
    Only tokens leave a choice; a model that cannot take such a batch, or has no loss in eval mode, gets `otherwise`.

    Args:
        loss: of a batch on the model's device; `model` is in eval mode meanwhile, and chance is restored.
        otherwise: number in `KINDS`.
        everyones: gathers what the ranks that have to agree have found.
    """
    misfits = _misfits(loss, model, batches[0]) if _leaves_a_choice(batches[0]) else None
    found = [each for each in everyones(misfits) if each is not None]
    totals = [sum(column) for column in zip(*found, strict=True)] if found else []
    return KINDS[totals.index(min(totals)) if found else otherwise]


def _leaves_a_choice(batch: Batch) -> bool:
    labels = _labels(batch)
    if labels is None or labels.dim() < 2 or labels.shape[-1] < 3 or labels.is_floating_point():
        return False
    return "shift_labels" not in batch and bool((labels != IGNORED).any())


def _misfits(loss: Loss, model: nn.Module, batch: Batch) -> list[float] | None:
    """How far the joint loss of two versions of the first example is from the mean by each of `KINDS`."""
    try:
        one = on_device(example(dict(batch), 0), model)
        full = torch.where(one["labels"] == IGNORED, batch["labels"].max(), one["labels"])
        short = full.clone()
        short[..., 2:] = IGNORED
        versions = [{**one, "labels": full}, {**one, "labels": short}]
        both = {k: torch.cat([v[k] for v in versions]) if _is_of(one, k) else one[k] for k in one}
        devices = [full.device] if full.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices), evaluating(model):
            first, second, joint = (float(loss(dict(each))) for each in (*versions, both))
    except Exception as error:  # noqa: BLE001  # a foreign model may say anything to a batch that is not its own
        logger.debug("could not ask the loss what it is a mean over: %s", error)
        return None
    found = []
    for kind in KINDS:
        m, n = (int(kind(each)) for each in versions)
        found.append(abs((m * first + n * second) / (m + n) - joint))
    return found


def _is_of(one: Batch, key: str) -> bool:
    value = one[key]
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == 1


def _labels(batch: Mapping[str, Any]) -> Tensor | None:
    labels = batch.get("labels")
    return labels if isinstance(labels, Tensor) and labels.dim() else None


def shares(
    batches: Sequence[Batch],
    count: Count,
    device: torch.device,
    average: Callable[[Tensor], None] = lambda own: None,
) -> Tensor:
    """[batches] weights of this rank's micro-batches' mean losses, 1 for all where every one of any rank holds as much.

    The mean of weighted losses over this rank's micro-batches, averaged over ranks, is the mean over the items of all.

    Args:
        average: replaces a number by its mean over the ranks that make a step together.
    """
    exact = torch.float32 if device.type == "mps" else torch.float64
    counts = torch.stack([count(batch).to(device, exact) for batch in batches])
    per_rank = counts.sum()
    average(per_rank)
    return (counts * len(batches) / per_rank.clamp(min=1e-9)).float()


def weighted(loss: Tensor, share: Tensor) -> Tensor:
    """A micro-batch's loss by its share; without any item it is a mean over nothing, which adds nothing."""
    share = share.to(loss.device)
    return torch.where(share > 0, loss * share, torch.zeros_like(loss))


def is_scaled(loss: Callable[[Batch, Tensor], Tensor], model: nn.Module, batch: Batch) -> bool | None:
    """Whether a loss is a sum divided by the number of items it is told, or a mean that does not listen.

    Args:
        loss: (batch, number of items) -> loss; asked twice, in eval mode, and chance is restored.
    Returns:
        None where it cannot be told: the loss fails, or is zero.
    """
    number = torch.tensor(8.0, device=next(model.parameters()).device)
    try:
        devices = [number.device] if number.device.type == "cuda" else []
        with torch.random.fork_rng(devices), evaluating(model):
            one, two = (float(loss(dict(batch), n).detach()) for n in (number, 2 * number))
    except Exception as error:  # noqa: BLE001  # it is the user's own
        logger.debug("could not ask `compute_loss` whether it uses num_items_in_batch: %s", error)
        return None
    return abs(one - 2 * two) < abs(one - two) if one else None


class Windows:
    """The window of each optimizer step of a Trainer, from when its batches are drawn until its last one is done.

    A loss that Trainer divides by the number of items is left to it: that of a `compute_loss_func`, and that of an
    overridden `compute_loss` which uses `num_items_in_batch`.

    Args:
        own_loss: whether `compute_loss` is overridden by the user of the trainer.
    """

    def __init__(self, trainer: Trainer, own_loss: bool):
        self.trainer, self.own_loss = trainer, own_loss
        self.model_listens = trainer.model_accepts_loss_kwargs
        """What Trainer believes: that a model whose `forward` takes any keyword uses the number of items."""
        # Trainer would hand that number to the model and leave the division to it
        trainer.model_accepts_loss_kwargs = False
        self._count: Count | None = None
        self._shares: dict[int, Tensor] = {}
        self._size, self._share = 1, None

    def open(self, batches: Sequence[Batch], num_items: Any, model: nn.Module) -> Any:
        """Weigh the micro-batches of the next step; gives the number of items that `compute_loss` is to be told.

        Args:
            num_items: what Trainer has counted, for a `compute_loss_func` alone.
        """
        trainer = self.trainer
        self._size, self._shares = max(1, len(batches)), {}
        if not batches or trainer.compute_loss_func is not None or not isinstance(batches[0], Mapping):
            return num_items
        if self._count is None:
            shifts = int(getattr(trainer, "_loss_shifts_labels", False))
            loss: Any = partial(Trainer.compute_loss, trainer, model)
            self._count = mean_over(loss, model, batches, shifts, ranks.everyones)
        device = trainer.args.device
        weights = shares(batches, self._count, device, ranks.average)
        self._shares = dict(zip(map(id, batches), weights, strict=True))
        if not self.own_loss:
            return num_items
        if trainer.loss_is_scaled_for_ga is None:
            trainer.loss_is_scaled_for_ga = self._is_scaled(model, batches[0])
        total = torch.stack([self._count(batch).to(device, torch.float32) for batch in batches]).sum()
        ranks.average(total)
        return total * (ranks.count() if trainer.args.average_tokens_across_devices else 1)

    def _is_scaled(self, model: nn.Module, batch: Batch) -> bool:
        def loss(batch: Batch, number: Tensor) -> Tensor:
            return self.trainer.compute_loss(model, batch, num_items_in_batch=number)  # pyright: ignore

        said = [each for each in ranks.everyones(is_scaled(loss, model, on_device(batch, model))) if each is not None]
        return said[0] if said else self.model_listens

    @contextmanager
    def inside(self, inputs: Batch) -> Iterator[None]:
        """While the loss of one of the window's batches is computed; another batch weighs 1."""
        self._share = self._shares.get(id(inputs))
        try:
            yield
        finally:
            self._share = None

    def loss(self, mean: Tensor, penalty: Tensor | None) -> Tensor:
        """A micro-batch's loss by its share, and a penalty that counts once per step, whoever divides by their number.
        """
        loss = mean if self._share is None else weighted(mean, self._share)
        if penalty is None:
            return loss
        trainer = self.trainer
        scaled = trainer.loss_is_scaled_for_ga
        undivided = trainer.compute_loss_func is not None if scaled is None else scaled
        return loss + penalty.to(loss.dtype) / (self._size if undivided else 1)
