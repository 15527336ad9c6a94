"""Scores and masks: choose the best entries under a budget, describe masks, save and load them."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from glue_sparse.core import tiles

Scores = Mapping[str, Tensor]
"""Parameter name -> worth of each entry; larger = more worth having. May be computed anew whenever it is read."""
Masks = dict[str, Tensor]
"""Parameter name -> bool, True = active; an absent name is wholly active."""

_HALF = 1 << 16


def select(
    scores: Scores, budget: int | dict[str, int], *, share: tuple[int, int] = (0, 1), block_size: int = 1
) -> Masks:
    """The `budget` best entries, exactly; of equal scores the earlier (order of names, then flat index) wins.

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
    _check_finite(scores)
    if block_size > 1:
        return _select_tiles(scores, budget, share, block_size)
    if isinstance(budget, int):
        return _select_jointly(scores, budget, share)
    if budget.keys() != scores.keys():
        raise ValueError(f"budgets and scores name different tensors: {sorted(budget.keys() ^ scores.keys())[:3]}")
    return {name: _select_jointly({name: score}, budget[name], share)[name] for name, score in scores.items()}


def _select_tiles(scores: Scores, budget: int | dict[str, int], share: tuple[int, int], block_size: int) -> Masks:
    for name, score in scores.items():
        tiles.check(name, score.shape, block_size)
    size = block_size**2
    for count in [budget] if isinstance(budget, int) else budget.values():
        if count % size:
            raise ValueError(f"{count:,} entries are not a whole number of tiles of {block_size}x{block_size}")
    whole = budget // size if isinstance(budget, int) else {name: count // size for name, count in budget.items()}
    pooled = {name: tiles.pooled(score, block_size) for name, score in scores.items()}
    return {name: tiles.spread(mask, block_size) for name, mask in select(pooled, whole, share=share).items()}


def select_in_groups(scores: Scores, num_kept: int, group: int, axes: Mapping[str, int]) -> Masks:
    """Of every `group` consecutive inputs of an output, the `num_kept` best ("N:M"); of equal scores the earlier wins.

    Args:
        axes: tensor -> the axis along which its inputs lie.
    Raises:
        ValueError: a group that does not divide an axis, a count outside [0, group], a score that is not finite.
    """
    if not 0 <= num_kept <= group:
        raise ValueError(f"a pattern keeps between 0 and all of its group, not {num_kept}:{group}")
    _check_finite(scores)
    masks = {}
    for name, score in scores.items():
        keys = _ordered_key(score).movedim(axes[name], -1)
        if keys.shape[-1] % group:
            raise ValueError(f"groups of {group} do not divide the {keys.shape[-1]} inputs of {name}")
        grouped = keys.reshape(-1, group)
        best = grouped.argsort(dim=1, descending=True, stable=True)[:, :num_kept]
        mask = torch.zeros_like(grouped, dtype=torch.bool).scatter_(1, best, True)
        masks[name] = mask.view(keys.shape).movedim(-1, axes[name]).contiguous()
    return masks


def _check_finite(scores: Scores) -> None:
    for name, score in scores.items():
        if not torch.isfinite(score).all():
            raise ValueError(f"the score of {name} holds values that are not finite")


def _select_jointly(scores: Scores, budget: int, share: tuple[int, int]) -> Masks:
    index, num_shares = share
    num_entries = sum(score.numel() for score in scores.values())
    if not 0 <= budget * num_shares <= num_entries:
        times = f"{num_shares} times " if num_shares > 1 else ""
        raise ValueError(f"cannot choose {times}{budget:,} of {num_entries:,} entries")
    if budget == 0:
        return {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
    masks = _best(scores, budget * num_shares)
    if num_shares > 1:
        keys = torch.cat([_ordered_key(score)[masks[name]] for name, score in scores.items()])
        mine = torch.zeros_like(keys, dtype=torch.bool)
        mine[keys.argsort(descending=True, stable=True)[index::num_shares]] = True
        for mask, part in zip(masks.values(), mine.split([int(m.sum()) for m in masks.values()]), strict=True):
            mask[mask.clone()] = part
    return masks


def _best(scores: Scores, budget: int) -> Masks:
    """Masks of the `budget` best entries, for a budget above 0."""
    threshold, num_ties = _kth_largest(scores, budget)
    masks = {}
    for name, score in scores.items():
        key = _ordered_key(score)
        mask = key > threshold
        if num_ties:
            ties = (key == threshold).flatten().nonzero().squeeze(1)[:num_ties]
            mask.view(-1)[ties] = True
            num_ties -= len(ties)
        masks[name] = mask
    return masks


def _ordered_key(score: Tensor) -> Tensor:
    """int32 keys in the order of the float32 scores, contiguous; -0.0 counts as 0.0."""
    bits = (score.detach().float() + 0.0).contiguous().view(torch.int32)
    return torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)


def _kth_largest(scores: Scores, k: int) -> tuple[int, int]:
    """Key of the k-th largest score, and how many entries equal to it are among the k largest.

    Radix selection in two passes over 16 bits each: no sort and no concatenated copy of the scores.
    """
    high = _histogram(((_ordered_key(s) >> 16) + _HALF // 2) for s in scores.values())
    top, k = _bin_of(high, k)
    prefix = top - _HALF // 2
    low = _histogram(
        (key[key >> 16 == prefix] & (_HALF - 1)) for key in (_ordered_key(s).flatten() for s in scores.values())
    )
    bottom, k = _bin_of(low, k)
    return (prefix << 16) | bottom, k


def _histogram(parts) -> Tensor:
    counts = torch.zeros(_HALF, dtype=torch.long)
    for part in parts:
        counts += torch.bincount(part.flatten(), minlength=_HALF).cpu()
    return counts


def _bin_of(counts: Tensor, k: int) -> tuple[int, int]:
    """The bin that holds the k-th largest element, and the element's rank from the top inside it (1 = largest)."""
    from_top = counts.flip(0).cumsum(0)
    position = int((from_top >= k).nonzero()[0])
    above = int(from_top[position - 1]) if position else 0
    return len(counts) - 1 - position, k - above


def positions(masks: Masks) -> Tensor:
    """Sorted flat positions of the active entries in the concatenation of all masked tensors; int32 where it fits."""
    flat = torch.cat([mask.detach().flatten().cpu() for mask in masks.values()])
    return narrow(flat.nonzero().squeeze(1), flat.numel())


def mask_of(indices: Tensor, shape: Sequence[int]) -> Tensor:
    """The bool tensor of a shape that is true at flat positions, on their device."""
    mask = torch.zeros(tuple(shape), dtype=torch.bool, device=indices.device)
    mask.view(-1)[indices.long()] = True
    return mask


def narrow(indices: Tensor, num_entries: int) -> Tensor:
    """Flat positions among `num_entries` as int32 where it fits, else as int64."""
    return indices.to(torch.int32 if num_entries <= torch.iinfo(torch.int32).max else torch.int64)


def from_positions(found: Tensor, shapes: dict[str, torch.Size]) -> Masks:
    """The masks that `positions` was called with, on the CPU."""
    flat = torch.zeros(sum(shape.numel() for shape in shapes.values()), dtype=torch.bool)
    flat[found.cpu().long()] = True
    parts = flat.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}


def pack(mask: Tensor) -> Tensor:
    """A bool tensor as uint8 numbers of eight entries each."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpack(bits: Tensor, shape: torch.Size) -> Tensor:
    """What `pack` was given."""
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=shape.numel()).astype(bool)).view(shape)


def num_active(masks: Masks) -> int:
    """Number of active entries."""
    return sum(int(mask.sum()) for mask in masks.values())


def density(masks: Masks) -> float:
    """Active fraction of the masked tensors."""
    num_entries = sum(mask.numel() for mask in masks.values())
    return num_active(masks) / num_entries if num_entries else 1.0


def digest(masks: Masks) -> str:
    """SHA-256 over names, shapes and bits; equal digests mean equal masks."""
    sha = hashlib.sha256()
    for name in sorted(masks):
        mask = masks[name]
        sha.update(f"{name}{tuple(mask.shape)}".encode())
        sha.update(mask.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
