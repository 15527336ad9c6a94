"""Scores and masks: choose the best entries under a budget, describe masks, save and load them."""

import hashlib
from collections.abc import Iterator, Mapping, MutableMapping

import torch
from torch import Tensor

from glue_sparse.core import tiles
from glue_sparse.core.chosen import Chosen, bools_of, count_of, positions_of, shape_of
from glue_sparse.core.chosen import mask_of as mask_of
from glue_sparse.core.chosen import narrow as narrow
from glue_sparse.core.chosen import pack as pack
from glue_sparse.core.chosen import unpack as unpack
from glue_sparse.core.pieces import pieces_of
from glue_sparse.core.selection import check_finite, choose, ordered_key

Scores = Mapping[str, Tensor]
"""Parameter name -> worth of each entry; larger = more worth having. May be computed anew whenever it is read."""
Masks = MutableMapping[str, Tensor]
"""Parameter name -> bool, True = active; an absent name is wholly active. `select` gives one that takes little memory
until a mask is read."""


def select(
    scores: Scores, budget: int | dict[str, int], *, share: tuple[int, int] = (0, 1), block_size: int = 1
) -> Chosen:
    """The `budget` best entries, exactly; of equal scores the earlier (order of names, then flat index) wins.

    Scores are read three times, a piece at a time where they are computed when they are read, and masks are held as
    positions until one is looked at: beside the scores, memory is that of the entries chosen.

    Args:
        scores: finite scores, any shapes.
        budget: one number for all tensors together, or one per tensor.
        share: (i, n) takes, of the n * budget best, those of ranks i, i + n, i + 2n, ...: n disjoint masks of nearly
            equal worth (FISH mask, section 4.2).
        block_size: side of square tiles that are active as a whole, the best by the sum of their magnitudes; they
            must cover the tensors, which are matrices then, and fill each budget.
    Raises:
        ValueError: a budget outside [0, number of entries], a score that is not finite, or tiles that do not fit.
    """
    if block_size > 1:
        return _select_tiles(scores, budget, share, block_size)
    return choose(scores, budget, share)


class _Pooled(Mapping[str, Tensor]):
    """Scores of tiles, computed when they are read."""

    def __init__(self, scores: Scores, block_size: int):
        self.scores, self.block_size = scores, block_size

    def __getitem__(self, name: str) -> Tensor:
        score = self.scores[name]
        tiles.check(name, score.shape, self.block_size)
        check_finite(name, score)
        return tiles.pooled(score, self.block_size)

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


def _select_tiles(scores: Scores, budget: int | dict[str, int], share: tuple[int, int], block_size: int) -> Chosen:
    size, pooled = block_size**2, _Pooled(scores, block_size)
    for name in scores:
        tiles.check(name, pieces_of(scores, name)[0], block_size)
    for count in [budget] if isinstance(budget, int) else budget.values():
        if count % size:
            raise ValueError(f"{count:,} entries are not a whole number of tiles of {block_size}x{block_size}")
    whole = budget // size if isinstance(budget, int) else {name: count // size for name, count in budget.items()}
    found = Chosen()
    for name, mask in select(pooled, whole, share=share).items():
        spread = tiles.spread(mask, block_size)
        found.hold(name, spread.flatten().nonzero().squeeze(1), spread.shape)
    return found


def select_in_groups(scores: Scores, num_kept: int, group: int, axes: Mapping[str, int]) -> Masks:
    """Of every `group` consecutive inputs of an output, the `num_kept` best ("N:M"); of equal scores the earlier wins.

    Args:
        axes: tensor -> the axis along which its inputs lie.
    Raises:
        ValueError: a group that does not divide an axis, a count outside [0, group], a score that is not finite.
    """
    if not 0 <= num_kept <= group:
        raise ValueError(f"a pattern keeps between 0 and all of its group, not {num_kept}:{group}")
    masks = Chosen()
    for name, score in scores.items():
        check_finite(name, score)
        keys = ordered_key(score).movedim(axes[name], -1)
        if keys.shape[-1] % group:
            raise ValueError(f"groups of {group} do not divide the {keys.shape[-1]} inputs of {name}")
        grouped = keys.reshape(-1, group)
        best = grouped.argsort(dim=1, descending=True, stable=True)[:, :num_kept]
        mask = torch.zeros_like(grouped, dtype=torch.bool).scatter_(1, best, True)
        masks.hold_mask(name, mask.view(keys.shape).movedim(-1, axes[name]).contiguous())
    return masks


def positions(masks: Masks) -> Tensor:
    """Sorted flat positions of the active entries in the concatenation of all masked tensors; int32 where it fits."""
    found, start = [], 0
    for name in masks:
        found.append(positions_of(masks, name).cpu() + start)
        start += shape_of(masks, name).numel()
    return narrow(torch.cat(found), start)


def from_positions(found: Tensor, shapes: dict[str, torch.Size]) -> Masks:
    """The masks that `positions` was called with, on the CPU."""
    masks, start, found = Chosen(), 0, found.cpu()
    for name, shape in shapes.items():
        ends = torch.tensor([start, start + shape.numel()], dtype=found.dtype)
        low, high = torch.searchsorted(found, ends).tolist()
        masks.hold(name, found[low:high].long() - start, shape)
        start += shape.numel()
    return masks


def num_active(masks: Masks) -> int:
    """Number of active entries."""
    return sum(count_of(masks, name) for name in masks)


def density(masks: Masks) -> float:
    """Active fraction of the masked tensors."""
    num_entries = sum(shape_of(masks, name).numel() for name in masks)
    return num_active(masks) / num_entries if num_entries else 1.0


def digest(masks: Masks) -> str:
    """SHA-256 over names, shapes and bits; equal digests mean equal masks."""
    sha = hashlib.sha256()
    for name in sorted(masks):
        sha.update(f"{name}{tuple(shape_of(masks, name))}".encode())
        for part in bools_of(masks, name):
            sha.update(part.numpy().data)
    return sha.hexdigest()
