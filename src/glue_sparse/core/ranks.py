"""What the processes of a distributed run ("ranks") do together; a single process does nothing."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d

from glue_sparse.core.content import MISSING, Fact
from glue_sparse.core.ledger import counted_as
from glue_sparse.writing.sentences import sentence

T = TypeVar("T")

GONE = ("another process of this run has ended, or its connection is lost: start all again, with "
        "`resume_from_checkpoint` last where there is a checkpoint")  # fmt: skip
_BACKEND = ("gloo", "Gloo", "NCCL", "c10d", "TCPStore", "by peer", "Broken pipe", "Connection refused", "ProcessGroup")
"""Words of which one is in whatever a backend says of a connection that has gone."""


def count() -> int:
    """How many processes train together; 1 where nobody has started a group of them."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def index() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this process is the one that speaks for all."""
    return index() == 0


def add(tensors: Mapping[str, Tensor], device: torch.device) -> Mapping[str, Tensor]:
    """Sums over ranks, tensor by tensor, on the device that their group talks over."""
    if count() == 1:
        return tensors
    summed = {name: tensor.to(device) for name, tensor in tensors.items()}
    for tensor in summed.values():
        dist.all_reduce(tensor)
    return summed


def joined(vector: Tensor, device: torch.device) -> Tensor:
    """The vectors of all ranks, of any lengths, one after the other, on the device that their group talks over."""
    if count() == 1:
        return vector
    lengths = torch.zeros(count(), dtype=torch.long, device=device)
    lengths[index()] = len(vector)
    dist.all_reduce(lengths)
    padded = torch.zeros(int(lengths.max()), dtype=vector.dtype, device=device)  # all have to send as much
    padded[: len(vector)] = vector
    found = [torch.empty_like(padded) for _ in range(count())]
    dist.all_gather(found, padded)
    return torch.cat([part[:length] for part, length in zip(found, lengths.tolist(), strict=True)])


def average(tensor: Tensor) -> None:
    """Replace a tensor by its mean over ranks, in place."""
    if count() > 1:
        dist.all_reduce(tensor)
        tensor /= count()


def average_gradients(parameters: Sequence[Tensor], group: Any = None) -> None:
    """Average the gradients of parameters over all ranks, in one message; a missing one counts as zero.

    Sums are formed in the order of ranks, as one process forms them that takes the ranks' batches one by one, and not
    in an order that follows from the number of ranks, the network and the size. This sends as much as any other way:
    each rank sums its share of the numbers, and all get all sums.

    Args:
        group: the ranks; by default all.
    """
    size = dist.get_world_size(group) if count() > 1 else 1
    if size == 1 or not parameters:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.reshape(-1).float() for gradient in gradients])
    with counted_as("gradients"):
        mean = _ordered_sum(flat, size, group) / size
    for parameter, part in zip(parameters, mean.split([g.numel() for g in gradients]), strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype)


def _ordered_sum(flat: Tensor, size: int, group: Any) -> Tensor:
    share = -(-len(flat) // size)
    sent = torch.cat([flat, flat.new_zeros(share * size - len(flat))])
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    total, *others = received.split(share)
    for other in others:
        total += other
    dist.all_gather([*sent.split(share)], total.contiguous(), group=group)
    return sent[: len(flat)]


def wait() -> None:
    """Return when all ranks are here."""
    if count() > 1:
        dist.barrier()


class Meeting:
    """Where all ranks meet again and again, on the CPU: none of them waits for its GPU. All must open it together."""

    def __init__(self) -> None:
        alone = count() == 1 or dist.get_backend() == dist.Backend.GLOO
        self._group = None if alone else dist.new_group(backend=dist.Backend.GLOO)

    def largest(self, number: int) -> int:
        """The largest number that any rank has brought; returns when all are here."""
        if count() == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX, self._group)
        return int(found)


def everyones(value: Any) -> list[Any]:
    """What each rank holds, in the order of ranks; any picklable value."""
    found: list[Any] = [value] * count()
    if count() > 1:
        dist.all_gather_object(found, value)
    return found


def first_told(name: str, number: float) -> float:
    """The number of this name that a rank has told first, this one perhaps; no rank waits for another.

    So ranks come to one number at any time, be it that some of them never ask.
    """
    if count() == 1:
        return number
    store: Any = distributed_c10d._get_default_store()
    return float(store.compare_set(f"glue_sparse/{name}", "", repr(float(number))))


def agree(value: Any) -> bool:
    """Whether all ranks hold the same value; hashable."""
    return len(set(everyones(value))) == 1


def check_same(facts: Mapping[str, Fact]) -> None:
    """Raise one ValueError on every rank where a fact is not the same on all of them.

    Args:
        facts: what decides a run, by the names that the message uses.
    """
    refuse_difference(everyones(dict(facts)))


def refuse_difference(said: Sequence[Mapping[str, Fact]]) -> None:
    """Raise a ValueError for the first fact that a rank has otherwise than rank 0.

    Args:
        said: the facts of each rank, in the order of ranks.
    """
    for rank, facts in enumerate(said):
        for name in {**said[0], **facts}:
            first, other = said[0].get(name, MISSING), facts.get(name, MISSING)
            if first.digest != other.digest:
                content = " of other content" if first.shown == other.shown else ""
                raise ValueError(f"ranks differ in {name}: {first.shown} on rank 0, {other.shown}{content} on rank "
                                 f"{rank}; start all with the same command, data, model and packages")  # fmt: skip


@contextmanager
def together() -> Iterator[None]:
    """Leave the block on all ranks in the same way: where it raises on one, a ValueError on the others says why.

    What all ranks do together must not be within the block, since a rank that raises would be missing there.
    """
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    said = everyones(None if failed is None else str(failed) or type(failed).__name__)
    if failed is not None:
        raise failed
    refuse_failure(said)


def refuse_failure(said: Sequence[str | None]) -> None:
    """Raise a ValueError where a rank has failed; `said` is what stopped each of them, or none."""
    for rank, reason in enumerate(said):
        if reason is not None:
            raise ValueError(f"rank {rank} ended: {sentence(' '.join(reason.split()), 250)}")


def in_turns(do: Callable[[], T]) -> T:
    """What `do` gives on this rank; the first rank does it before the others, which find what it has left on disk.

    Raises:
        ValueError: on all ranks, where it raises on one.
    """
    found: list[T] = []
    for turn in (True, False):
        with together():
            if is_first() == turn:
                found.append(do())
    return found[0]


@contextmanager
def all_alive() -> Iterator[None]:
    """Turn what a backend says of a connection that has gone into one OSError that says how to go on."""
    try:
        yield
    except RuntimeError as error:
        if count() == 1 or not _of_backend(error):
            raise
        reason = re.sub(r"^\[.*?\] ", "", str(error))  # without the backend's own file and line, and its guesses
        reason = re.split(r"\. |\n", reason)[0]
        raise ConnectionError(f"{GONE} ({sentence(reason, 90)})") from error


def _of_backend(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(word in str(error) for word in _BACKEND)
