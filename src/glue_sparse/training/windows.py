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
from glue_sparse.core.batches import Batch, on_device, undisturbed
from glue_sparse.training.means import Items, find_items

logger = logging.getLogger(__name__)

def shares(
    batches: Sequence[Batch],
    count: Items,
    device: torch.device,
    average: Callable[[Tensor], None] = lambda own: None,
    num_ranks: int = 1,
) -> Tensor:
    """[batches] weights of this rank's micro-batches' mean losses, 1 for all where every one of any rank holds as much.

    The mean of weighted losses over this rank's micro-batches, averaged over ranks, is the mean over the items of all,
    or, of a loss that is a sum, the sum over them.

    Args:
        average: replaces a number by its mean over the ranks that make a step together, `num_ranks`.
    """
    if count.over == "sum":
        return torch.full((len(batches),), float(len(batches) * num_ranks), device=device)
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
        with undisturbed(model):
            one, two = (float(loss(dict(batch), n).detach()) for n in (number, 2 * number))
    except Exception as error:  # noqa: BLE001  # it is the user's own
        logger.debug("could not ask `compute_loss` whether it uses num_items_in_batch: %s", error)
        return None
    return abs(one - 2 * two) < abs(one - two) if one else None


class Windows:
    """The window of each optimizer step of a Trainer, from when its batches are drawn until its last one is done.

    A loss that Trainer divides by the number of items is left to it: that of a `compute_loss_func` or of an overridden
    `compute_loss` which uses `num_items_in_batch`.

    Args:
        own_loss: whether `compute_loss` is overridden by the user of the trainer.
    """

    def __init__(self, trainer: Trainer, own_loss: bool):
        self.trainer, self.own_loss = trainer, own_loss
        self.model_listens = trainer.model_accepts_loss_kwargs
        """What Trainer believes: that a model whose `forward` takes any keyword uses the number of items."""
        # Trainer would hand that number to the model and leave the division to it
        trainer.model_accepts_loss_kwargs = False
        self.deaf = False
        """Whether a `compute_loss_func` does not use the number of items: a mean or a sum like any other."""
        self._items, self._settled = Items("labels", int(getattr(trainer, "_loss_shifts_labels", False))), False
        self._shares: dict[int, Tensor] = {}
        self._size, self._share = 1, None

    def open(self, batches: Sequence[Batch], num_items: Any, model: nn.Module) -> Any:
        """Weigh the micro-batches of the next step; gives the number of items that `compute_loss` is to be told.

        Args:
            num_items: what Trainer has counted, for a `compute_loss_func` alone.
        """
        trainer = self.trainer
        self._size, self._shares = max(1, len(batches)), {}
        if not batches or not isinstance(batches[0], Mapping):
            return num_items
        theirs = self.own_loss or trainer.compute_loss_func is not None
        if theirs and trainer.loss_is_scaled_for_ga is None:
            trainer.loss_is_scaled_for_ga = self._is_scaled(model, batches[0])
            self.deaf = not self.own_loss and not trainer.loss_is_scaled_for_ga
        if trainer.compute_loss_func is not None and not self.deaf:
            return num_items
        alone = trainer.args.gradient_accumulation_steps == ranks.count() == 1 and not self.own_loss
        if not self._settled and not alone:
            self._items, self._settled = find_items(
                partial(Trainer.compute_loss, trainer, model), model, batches,  # pyright: ignore[reportArgumentType]
                self._items.first, ranks.everyones, trainer.label_names,
            )  # fmt: skip
        device = trainer.args.device
        weights = shares(batches, self._items, device, ranks.average, ranks.count())
        self._shares = dict(zip(map(id, batches), weights, strict=True))
        if not self.own_loss:
            return num_items
        total = torch.stack([self._items(batch).to(device, torch.float32) for batch in batches]).sum()
        ranks.average(total)
        return total * (ranks.count() if trainer.args.average_tokens_across_devices else 1)

    def _is_scaled(self, model: nn.Module, batch: Batch) -> bool:
        def loss(batch: Batch, number: Tensor) -> Tensor:
            return self.trainer.compute_loss(model, batch, num_items_in_batch=number)  # pyright: ignore

        said = [each for each in ranks.everyones(is_scaled(loss, model, on_device(batch, model))) if each is not None]
        return said[0] if said else self.model_listens or self.trainer.compute_loss_func is not None

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
