"""The loss that a Trainer trains, of a few examples: what scores that look at gradients have to differentiate."""

from torch import Tensor, nn
from transformers import Trainer

from glue_sparse.core.batches import Batch


def example_loss(trainer: Trainer, model: nn.Module, batch: Batch) -> Tensor:
    """The loss of a batch by itself, a scalar: `compute_loss`, a `compute_loss_func` and label smoothing included.

    A `compute_loss_func` is told the number of labels of this batch, as it would be in training.
    """
    args, options = trainer.args, {}
    over_ranks, args.average_tokens_across_devices = args.average_tokens_across_devices, False  # ranks score apart
    try:
        if trainer.compute_loss_func is not None:
            options["num_items_in_batch"] = trainer._get_num_items_in_batch([batch], args.device)
        loss = trainer.compute_loss(model, dict(batch), **options)  # a dict of its own: labels are taken out of it
    finally:
        args.average_tokens_across_devices = over_ranks
    assert isinstance(loss, Tensor)
    return loss
