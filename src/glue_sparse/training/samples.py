"""Training examples to choose active entries by, and the loss that a Trainer trains them with."""

import math
from collections.abc import Callable, Mapping, Sized
from functools import partial
from itertools import accumulate, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from glue_sparse.core.batches import Batch, Examples
from glue_sparse.core.randomness import chance_kept, seeded

_PADDING = 1 / 16
"""Of a batch that is larger than others, for each of its tokens."""


def steps_per_epoch(trainer: Trainer) -> int | None:
    """Optimizer steps of one pass over the training data; none where it has no length."""
    args, data = trainer.args, trainer.train_dataset
    if not isinstance(data, Sized) or args.dataloader_drop_last and len(data) < args.train_batch_size:
        return None
    per_rank = len(data) / (args.train_batch_size * args.world_size)
    batches = int(per_rank) if args.dataloader_drop_last else math.ceil(per_rank)
    return max(1, math.ceil(batches / args.gradient_accumulation_steps))


def drawn(trainer: Trainer, num_samples: int, share: tuple[int, int], draw: int) -> Examples:
    """See `SparseTrainer.sample_batches`."""
    args, data = trainer.args, trainer.train_dataset
    examples: list[Any]
    if data is None:
        raise ValueError("this method chooses entries by training examples: give SparseTrainer a `train_dataset`")
    if hasattr(data, "__len__"):
        keys = ("score samples", draw) if draw else ("score samples",)
        order = torch.randperm(len(data), generator=seeded(args.seed, *keys))[:num_samples]  # pyright: ignore
        examples = [data[i] for i in order.tolist()]  # pyright: ignore[reportOptionalSubscript, reportIndexIssue]
    else:
        examples = list(islice(data, num_samples))  # pyright: ignore[reportArgumentType]
    examples = examples[share[0] :: share[1]]
    if examples and isinstance(examples[0], dict) and "input_ids" in examples[0]:
        examples.sort(key=lambda example: len(example["input_ids"]))
    loader = partial(
        DataLoader, examples,  # pyright: ignore[reportArgumentType]
        collate_fn=trainer._get_collator_with_removed_columns(trainer.data_collator),
        generator=torch.Generator(),  # a loader without one would draw from the global random state
    )  # fmt: skip
    size = args.per_device_train_batch_size
    groups = _by_tokens(examples, size, loader)
    return Examples(
        loader(batch_size=size), partial(example_loss, trainer), tuple(trainer.label_names),
        loader(batch_sampler=groups) if groups else None,
    )  # fmt: skip


def _by_tokens(examples: list[Any], batch_size: int, loader: Callable[..., DataLoader]) -> list[list[int]]:
    """Batches, by numbers of examples, none with more tokens than as many of the longest as a batch has.

    Those of more examples than others have are of such lengths that little of them is padding.
    """
    lengths = [_num_tokens(example) for example in examples]
    if not all(lengths) or not examples:
        return []
    with chance_kept():
        shortest = next(iter(loader(batch_sampler=[[0]])))
    widths = [*accumulate((max(length, _num_tokens(shortest)) for length in lengths), max)]
    groups, tokens = [[0]], widths[0]
    for i, width in enumerate(widths[1:], start=1):
        num, tokens = len(groups[-1]) + 1, tokens + width
        is_padded = num > batch_size and num * width > (1 + _PADDING) * tokens
        if num * width > batch_size * widths[-1] or is_padded:
            groups.append([])
            tokens = width
        groups[-1].append(i)
    return groups


def _num_tokens(example: Any) -> int:
    """The longest sequence of an example, or of a batch of one; 0 for what has no tokens."""
    if not isinstance(example, Mapping) or "input_ids" not in example:
        return 0
    return max(map(_count, (example["input_ids"], example.get("labels"))))


def _count(values: Any) -> int:
    if isinstance(values, list | tuple):
        return sum(map(_count, values))
    return math.prod(getattr(values, "shape", ()))


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
