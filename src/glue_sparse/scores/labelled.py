"""Examples that a score looks at: by which loss, and which of them have a label."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers.utils import find_labels  # pyright: ignore[reportPrivateImportUsage]

from glue_sparse.core.batches import IGNORED, Batch, Examples, chosen_examples, loss_of


def with_loss(model: nn.Module, batches: Iterable[Batch]) -> Examples:
    """Batches together with a loss: the one that they bring, or else the model's own."""
    if isinstance(batches, Examples):
        return batches
    return Examples(batches, _own_loss, tuple(find_labels(type(model)) or ["labels"]))


def labelled(batch: Batch, label_names: tuple[str, ...]) -> Batch:
    """The examples that have a label other than -100, which stands for none."""
    labels = _class_labels(batch, label_names)
    if not labels:
        return batch
    counted = [label != IGNORED for label in labels]
    kept = torch.stack([each.flatten(1).any(1) if each.dim() > 1 else each for each in counted])
    return batch if kept.any(0).all() else chosen_examples(batch, kept.any(0))


def _class_labels(batch: Batch, label_names: tuple[str, ...]) -> list[Tensor]:
    labels = [batch[name] for name in label_names if isinstance(batch.get(name), Tensor)]
    return [label for label in labels if label.dim() and not label.is_floating_point()]


def _own_loss(model: nn.Module, batch: Batch) -> Tensor:
    return loss_of(model(**batch))
