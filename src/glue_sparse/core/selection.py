"""The best of many scores, exactly: radix selection over one process, or over several that each hold a part."""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from glue_sparse.core.chosen import Chosen, narrow
from glue_sparse.core.pieces import pieces_of

_HALF = 1 << 16
_LARGEST = (1 << 31) - 1
_EXPONENT = 0x7F80
"""Upper half of the bits of infinity; those of what is no number are above."""


class Alone:
    """What a process that holds all scores exchanges with others: nothing. Base of what holds a part of them."""

    def together(self) -> AbstractContextManager[None]:
        """Within the block each process reads its own scores; where one fails, all do."""
        return nullcontext()

    def add(self, counts: Tensor) -> Tensor:
        """Sums of int64 counts over processes."""
        return counts

    def num_ties(self, name: str, most: int, ties: Callable[[], Iterator[Tensor]]) -> int:
        """How many ties of a tensor this process takes at most, so that all of them together take the first `most`.

        Args:
            ties: gives the flat positions of this process's ties, ascending, as vectors.
        """
        return most

    def union(self, name: str, positions: Tensor, shape: torch.Size) -> tuple[Tensor, torch.Size]:
        """[k] ascending flat positions of what all processes chose of a tensor, and its shape, from this one's."""
        return positions, shape


def choose(
    scores: Mapping[str, Tensor], budget: int | dict[str, int], share: tuple[int, int] = (0, 1),
    parts: Alone = Alone(),  # noqa: B008  # it holds nothing
) -> Chosen:  # fmt: skip
    """See `masks.select`.

    Args:
        parts: what processes exchange where each reads the scores of its own part; for a whole share only.
    """
    found = Chosen()
    if isinstance(budget, int):
        _choose_jointly(found, scores, [*scores], budget, share, parts)
        return found
    if budget.keys() != scores.keys():
        raise ValueError(f"budgets and scores name different tensors: {sorted(budget.keys() ^ scores.keys())[:3]}")
    for name in scores:
        _choose_jointly(found, scores, [name], budget[name], share, parts)
    return found


def check_finite(name: str, score: Tensor) -> None:
    """Raise a ValueError for a score that is infinite or no number."""
    if not torch.isfinite(score).all():
        raise not_finite(name)


def not_finite(name: str) -> ValueError:
    """What is raised for a score that is infinite or no number."""
    return ValueError(f"the score of {name} holds values that are not finite")


def _choose_jointly(
    found: Chosen, scores: Mapping[str, Tensor], names: Sequence[str], budget: int, share: tuple[int, int],
    parts: Alone,
) -> None:  # fmt: skip
    """Put masks of the `budget` best of these tensors into `found`."""
    index, num_shares = share
    with parts.together():
        high = _high_halves(scores, names)
    high = parts.add(high)
    num_entries = int(high.sum())
    if not 0 <= budget * num_shares <= num_entries:
        times = f"{num_shares} times " if num_shares > 1 else ""
        raise ValueError(f"cannot choose {times}{budget:,} of {num_entries:,} entries")
    threshold, num_ties = _kth_largest(scores, names, high, budget * num_shares, parts) if budget else (_LARGEST, 0)
    best, room = {}, _Room(budget * num_shares, num_entries)
    for name in names:
        most = parts.num_ties(name, num_ties, partial(_ties, scores, name, threshold))
        best[name] = _best(scores, name, threshold, most, num_shares > 1, room)
        num_ties -= int(parts.add(torch.tensor(best[name].num_ties)))
    if num_shares == 1:
        for name, one in best.items():
            found.hold(name, *parts.union(name, one.positions, one.shape))
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


def _best(
    scores: Mapping[str, Tensor], name: str, threshold: int, most_ties: int, with_keys: bool, room: _Room
) -> _Best:
    """The entries above a key, and the first of those that equal it."""
    shape, parts = pieces_of(scores, name)
    worst, keys, num_ties = _score_of(threshold), [], 0

    def places() -> Iterator[Tensor]:
        nonlocal num_ties
        start = 0
        for part in parts:
            score = _comparable(part)
            chosen = score > worst
            if num_ties < most_ties:
                ties = (score == worst).nonzero().squeeze(1)[: most_ties - num_ties]
                chosen[ties] = True
                num_ties += len(ties)
            here = chosen.nonzero().squeeze(1)
            if with_keys:
                keys.append(ordered_key(score[here]))
            yield here + start
            start += len(score)

    positions = room.take(places(), shape.numel())
    return _Best(positions, torch.cat(keys) if keys else positions[:0], num_ties, shape)


def _ties(scores: Mapping[str, Tensor], name: str, threshold: int) -> Iterator[Tensor]:
    """Flat positions of the entries whose key is this one."""
    start = 0
    for part in pieces_of(scores, name)[1]:
        yield (_comparable(part) == _score_of(threshold)).nonzero().squeeze(1) + start
        start += len(part)


def ordered_key(score: Tensor) -> Tensor:
    """int32 keys in the order of the float32 scores, contiguous; -0.0 counts as 0.0."""
    bits = _bits(score)
    return torch.where(bits >= 0, bits, bits ^ _LARGEST)


def _bits(score: Tensor) -> Tensor:
    """Of the float32 scores, in memory of their own; -0.0 has those of 0.0."""
    return (score.detach().float() + 0.0).contiguous().view(torch.int32)


def _comparable(score: Tensor) -> Tensor:
    """Scores that compare with any float32 number that is a score, or the least with its upper half."""
    score = score.detach()
    return score if score.dtype in (torch.float32, torch.bfloat16) else score.float()


def _score_of(key: int) -> float:
    """The float32 score with this key: scores compare as keys do, and no key of each entry need be computed."""
    (score,) = struct.unpack("<f", struct.pack("<i", key if key >= 0 else key ^ _LARGEST))
    return score


def _kth_largest(
    scores: Mapping[str, Tensor], names: Sequence[str], high: Tensor, k: int, parts: Alone
) -> tuple[int, int]:
    """Key of the k-th largest score, and how many entries equal to it are among the k largest.

    Radix selection in two passes over 16 bits each, `high` being the first: no sort and no copy of the scores.
    """
    top, k = _bin_of(high, k)
    prefix = top - _HALF // 2
    low = parts.add(_low_halves(scores, names, prefix))
    bottom, k = _bin_of(low, k)
    return (prefix << 16) | bottom, k


def _high_halves(scores: Mapping[str, Tensor], names: Iterable[str]) -> Tensor:
    """How many entries have each upper half of a key, in order; all scores are seen to be finite."""
    total = torch.zeros(_HALF, dtype=torch.long)
    for name in names:
        counts = torch.zeros_like(total)
        for part in pieces_of(scores, name)[1]:
            halves = _bits(part).bitwise_right_shift_(16).add_(_HALF // 2)
            counts += torch.bincount(halves, minlength=_HALF).cpu()
        below, above = counts.split(_HALF // 2)  # of scores below 0, which are in the order of their magnitudes, too
        if below[_EXPONENT:].any() or above[_EXPONENT:].any():
            raise not_finite(name)
        total += torch.cat([below.flip(0), above])
    return total


def _low_halves(scores: Mapping[str, Tensor], names: Iterable[str], prefix: int) -> Tensor:
    """How many entries have each lower half of a key, of those whose upper half is this."""
    counts = torch.zeros(_HALF, dtype=torch.long)
    least = _score_of(prefix << 16)
    for name in names:
        for part in pieces_of(scores, name)[1]:
            score = _comparable(part)
            key = ordered_key(score[score >= least])
            counts += torch.bincount(key[key >> 16 == prefix] & (_HALF - 1), minlength=_HALF).cpu()
    return counts


def _bin_of(counts: Tensor, k: int) -> tuple[int, int]:
    """The bin that holds the k-th largest element, and the element's rank from the top inside it (1 = largest)."""
    from_top = counts.flip(0).cumsum(0)
    position = int((from_top >= k).nonzero()[0])
    above = int(from_top[position - 1]) if position else 0
    return len(counts) - 1 - position, k - above
