"""Scores and masks: choose the best entries under a budget, describe masks, save and load them."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from glue_sparse.core import tiles
from glue_sparse.core.chosen import Chosen, bools_of, count_of, positions_of, shape_of
from glue_sparse.core.chosen import mask_of as mask_of
from glue_sparse.core.chosen import narrow as narrow
from glue_sparse.core.chosen import pack as pack
from glue_sparse.core.chosen import unpack as unpack
from glue_sparse.core.pieces import pieces_of

Scores = Mapping[str, Tensor]
"""Parameter name -> worth of each entry; larger = more worth having. May be computed anew whenever it is read."""
Masks = MutableMapping[str, Tensor]
"""Parameter name -> bool, True = active; an absent name is wholly active. `select` gives one that takes little memory
until a mask is read."""

_HALF = 1 << 16
_LARGEST = (1 << 31) - 1


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
    found = Chosen()
    if isinstance(budget, int):
        _select_jointly(found, scores, [*scores], budget, share)
        return found
    if budget.keys() != scores.keys():
        raise ValueError(f"budgets and scores name different tensors: {sorted(budget.keys() ^ scores.keys())[:3]}")
    for name in scores:
        _select_jointly(found, scores, [name], budget[name], share)
    return found


class _Pooled(Mapping[str, Tensor]):
    """Scores of tiles, computed when they are read."""

    def __init__(self, scores: Scores, block_size: int):
        self.scores, self.block_size = scores, block_size

    def __getitem__(self, name: str) -> Tensor:
        score = self.scores[name]
        tiles.check(name, score.shape, self.block_size)
        _check_finite(name, score)
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
        _check_finite(name, score)
        keys = _ordered_key(score).movedim(axes[name], -1)
        if keys.shape[-1] % group:
            raise ValueError(f"groups of {group} do not divide the {keys.shape[-1]} inputs of {name}")
        grouped = keys.reshape(-1, group)
        best = grouped.argsort(dim=1, descending=True, stable=True)[:, :num_kept]
        mask = torch.zeros_like(grouped, dtype=torch.bool).scatter_(1, best, True)
        masks.hold_mask(name, mask.view(keys.shape).movedim(-1, axes[name]).contiguous())
    return masks


def _check_finite(name: str, score: Tensor) -> None:
    if not torch.isfinite(score).all():
        raise ValueError(f"the score of {name} holds values that are not finite")


def _select_jointly(found: Chosen, scores: Scores, names: Sequence[str], budget: int, share: tuple[int, int]) -> None:
    """Put masks of the `budget` best of these tensors into `found`."""
    index, num_shares = share
    high = _histogram((key >> 16) + _HALF // 2 for key in _keys(scores, names, is_first=True))
    num_entries = int(high.sum())
    if not 0 <= budget * num_shares <= num_entries:
        times = f"{num_shares} times " if num_shares > 1 else ""
        raise ValueError(f"cannot choose {times}{budget:,} of {num_entries:,} entries")
    threshold, num_ties = _kth_largest(scores, names, high, budget * num_shares) if budget else (_LARGEST, 0)
    best, room = {}, _Room(budget * num_shares, num_entries)
    for name in names:
        best[name] = _best(scores, name, threshold, num_ties, num_shares > 1, room)
        num_ties -= best[name].num_ties
    if num_shares == 1:
        for name, one in best.items():
            found.hold(name, one.positions, one.shape)
        return
    keys = torch.cat([one.keys for one in best.values()])
    mine = torch.zeros_like(keys, dtype=torch.bool)
    mine[keys.argsort(descending=True, stable=True)[index::num_shares]] = True
    for (name, one), part in zip(best.items(), mine.split([len(one.keys) for one in best.values()]), strict=True):
        found.hold(name, one.positions[part], one.shape)


class _Best(NamedTuple):
    """The best entries of a tensor: sorted flat positions, their keys where wanted, and how many tie with the worst."""

    positions: Tensor
    keys: Tensor
    num_ties: int
    shape: torch.Size


class _Room:
    """Memory for the positions of all that is chosen, taken at once: many small parts of it would lie between what is
    freed while pieces are read, and keep the system from getting that back."""

    def __init__(self, num_chosen: int, num_entries: int):
        self.size = num_chosen if num_chosen <= num_entries // 32 else 0  # else a tensor's positions go, see `Chosen`
        self._taken: dict[torch.device, tuple[Tensor, int]] = {}

    def take(self, parts: Iterable[Tensor], num_entries: int) -> Tensor:
        """Positions in a tensor of so many entries, vector by vector, as one vector."""
        if not self.size or num_entries > torch.iinfo(torch.int32).max:
            return torch.cat([narrow(part, num_entries) for part in parts])
        found: list[Tensor] = []
        for part in parts:
            room, start = self._taken.get(part.device) or (part.new_empty(self.size, dtype=torch.int32), 0)
            end = start + len(part)
            room[start:end] = part
            self._taken[part.device] = room, end
            found = [room[found[0].storage_offset() if found else start : end]]
        return found[0]


def _best(scores: Scores, name: str, threshold: int, most_ties: int, with_keys: bool, room: _Room) -> _Best:
    """The entries above a key, and the first of those that equal it."""
    shape, parts = pieces_of(scores, name)
    keys, num_ties = [], 0

    def places() -> Iterator[Tensor]:
        nonlocal num_ties
        start = 0
        for part in parts:
            key = _ordered_key(part)
            chosen = key > threshold
            if num_ties < most_ties:
                ties = (key == threshold).nonzero().squeeze(1)[: most_ties - num_ties]
                chosen[ties] = True
                num_ties += len(ties)
            here = chosen.nonzero().squeeze(1)
            if with_keys:
                keys.append(key[here])
            yield here + start
            start += len(key)

    positions = room.take(places(), shape.numel())
    return _Best(positions, torch.cat(keys) if keys else positions[:0], num_ties, shape)


def _keys(scores: Scores, names: Iterable[str], is_first: bool = False) -> Iterator[Tensor]:
    """Ordered keys of all entries, a vector at a time; the first time over, scores are seen to be finite."""
    for name in names:
        for part in pieces_of(scores, name)[1]:
            if is_first:
                _check_finite(name, part)
            yield _ordered_key(part)


def _ordered_key(score: Tensor) -> Tensor:
    """int32 keys in the order of the float32 scores, contiguous; -0.0 counts as 0.0."""
    bits = (score.detach().float() + 0.0).contiguous().view(torch.int32)
    return torch.where(bits >= 0, bits, bits ^ _LARGEST)


def _kth_largest(scores: Scores, names: Sequence[str], high: Tensor, k: int) -> tuple[int, int]:
    """Key of the k-th largest score, and how many entries equal to it are among the k largest.

    Radix selection in two passes over 16 bits each, `high` being the first: no sort and no copy of the scores.
    """
    top, k = _bin_of(high, k)
    prefix = top - _HALF // 2
    low = _histogram(key[key >> 16 == prefix] & (_HALF - 1) for key in _keys(scores, names))
    bottom, k = _bin_of(low, k)
    return (prefix << 16) | bottom, k


def _histogram(parts: Iterable[Tensor]) -> Tensor:
    counts = torch.zeros(_HALF, dtype=torch.long)
    for part in parts:
        counts += torch.bincount(part, minlength=_HALF).cpu()
    return counts


def _bin_of(counts: Tensor, k: int) -> tuple[int, int]:
    """The bin that holds the k-th largest element, and the element's rank from the top inside it (1 = largest)."""
    from_top = counts.flip(0).cumsum(0)
    position = int((from_top >= k).nonzero()[0])
    above = int(from_top[position - 1]) if position else 0
    return len(counts) - 1 - position, k - above


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
