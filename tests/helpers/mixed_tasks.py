"""Random tasks of a network, and the block in which a network is one of them, written without the library's own."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from glue_sparse import DiffInfo, SparseDiff
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.core.params import head_names


def random_task(
    model: nn.Module, seed: int = 0, share: float = 0.1, outputs: int | None = None, only: str = "", by: float = 0.1,
    info: DiffInfo | None = None,
) -> SparseDiff:  # fmt: skip
    """A diff with random entries and a random head.

    Args:
        share: of the entries of each tensor outside of the head; of vectors half where the seed is odd.
        outputs: of the last layer of the head, by default as many as in the model.
        only: a part of the names of those tensors.
        by: size of the changes.
    """
    chance = torch.Generator().manual_seed(seed)
    head, indices, values, shapes, whole = head_names(model), {}, {}, {}, {}
    last = head[-1].rpartition(".")[0] if head else ""
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=chance)
        if name in head:
            size = outputs if outputs and name.startswith(last) else len(parameter)
            whole[name] = 0.3 * torch.randn(size, *parameter.shape[1:], generator=chance)
            continue
        shapes[name] = tuple(parameter.shape)
        part = 0.5 if parameter.dim() == 1 and seed % 2 else share
        chosen = (torch.rand(parameter.numel(), generator=chance) < part).nonzero().squeeze(1)
        if only in name and len(chosen):
            indices[name] = chosen.int()
            values[name] = (parameter.detach() + by * drawn).flatten()[chosen].float()
    return SparseDiff(indices, values, whole, shapes, _digests(model, indices), info or DiffInfo())


def _digests(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    return {name: tensor_digest(model.get_parameter(name)) for name in names}


def swapping(model: nn.Module, diffs: Mapping[str, SparseDiff]) -> Callable[[str], AbstractContextManager[Any]]:
    """Task -> a block within which the model has its tensors."""

    @contextmanager
    def use(task: str) -> Iterator[None]:
        tensors, diff = current_tensors(model), diffs[task]
        before = {name: tensors[name].data for name in (*diff.indices, *diff.whole)}
        for name, places in diff.indices.items():
            new = tensors[name].data.clone()
            new.view(-1)[places.long()] = diff.values[name].to(new.dtype)
            tensors[name].data = new
        for name, tensor in diff.whole.items():
            tensors[name].data = tensor.to(tensors[name].dtype)
        yield
        for name, old in before.items():
            tensors[name].data = old

    return use


def tokens(rows: int, length: int, size: int = 50, padded: bool = True) -> dict[str, Tensor]:
    """Random ids with padding of different lengths on the right."""
    chance = torch.Generator().manual_seed(0)
    ids = torch.randint(1, size, (rows, length), generator=chance)
    mask = torch.ones_like(ids)
    if padded:
        for row in range(rows):
            mask[row, length - row % max(length // 2, 1) :] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def furthest(one: Mapping[str, list[Any]], other: Mapping[str, list[Any]]) -> float:
    """The largest difference of two answers, as part of the largest output of its row."""
    assert one.keys() == other.keys()
    pairs = [pair for field in one for pair in zip(one[field], other[field], strict=True)]
    assert all(a.shape == b.shape for a, b in pairs)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
