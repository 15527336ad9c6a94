"""What workers send each other: three collectives, and a ledger that counts the bytes where they are sent."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from glue_sparse.arguments.groups import MergeArguments
from glue_sparse.core import ranks


@dataclass(frozen=True)
class Sent:
    """One tensor that one worker handed to a collective, and what it got back."""

    worker: int
    merge: int
    """Number of the merge, from 1 on; 0 is what happens before the first."""
    kind: str
    """values, head, buffers or indices."""
    sent: int
    """Bytes of the tensor handed in."""
    received: int
    """Bytes of the tensors that came back."""


class Ledger:
    """All that the workers of this process have sent."""

    def __init__(self) -> None:
        self.entries: list[Sent] = []

    def note(self, worker: int, merge: int, kind: str, sent: int, received: int) -> None:
        """Count one worker's part in one collective."""
        self.entries.append(Sent(worker, merge, kind, sent, received))

    def as_rows(self) -> list[dict[str, Any]]:
        """The entries as JSON has them."""
        return [asdict(entry) for entry in self.entries]


class Exchange(ABC):
    """Collectives among `num_workers` workers, of which this process runs `local`.

    Bytes are those of the tensors handed in and given back; what a ring or a tree of connections makes of them is the
    library's business.
    """

    def __init__(self, num_workers: int, local: Sequence[int]) -> None:
        self.num_workers, self.local = num_workers, tuple(local)
        self.ledger, self.merge = Ledger(), 0

    def gather(self, kind: str, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Every worker's tensor, in the order of workers.

        Args:
            tensors: one per local worker; all workers' have the same shape.
        """
        found = self._gather(tensors)
        for worker, tensor in zip(self.local, tensors, strict=True):
            self.ledger.note(worker, self.merge, kind, tensor.nbytes, sum(t.nbytes for t in found))
        return found

    def add(self, kind: str, tensors: Sequence[Tensor]) -> Tensor:
        """The sum of every worker's tensor."""
        total = self._add(tensors)
        for worker, tensor in zip(self.local, tensors, strict=True):
            self.ledger.note(worker, self.merge, kind, tensor.nbytes, total.nbytes)
        return total

    def broadcast(self, kind: str, tensor: Tensor | None) -> Tensor:
        """Worker 0's matrix of int32 or int64; the others give None, and are told its shape first."""
        header = torch.zeros(3, dtype=torch.int64)
        if tensor is not None:
            header = torch.tensor([*tensor.shape, tensor.itemsize])
        rows, columns, itemsize = self._broadcast(header).tolist()
        if tensor is None:
            tensor = torch.empty(rows, columns, dtype=torch.int32 if itemsize == 4 else torch.int64)
        found = self._broadcast(tensor)
        num_bytes = header.nbytes + found.nbytes
        for worker in self.local:
            self.ledger.note(worker, self.merge, kind, *((num_bytes, 0) if worker == 0 else (0, num_bytes)))
        return found

    @abstractmethod
    def agree(self, value: str) -> bool:
        """Whether every process holds the same value; not counted, since nothing is trained by it."""

    @abstractmethod
    def entries(self) -> list[Sent]:
        """What all workers sent; every process gets the whole list."""

    @abstractmethod
    def wait(self) -> None:
        """Return when all processes are here."""

    @abstractmethod
    def _gather(self, tensors: Sequence[Tensor]) -> list[Tensor]: ...

    @abstractmethod
    def _add(self, tensors: Sequence[Tensor]) -> Tensor: ...

    @abstractmethod
    def _broadcast(self, tensor: Tensor) -> Tensor: ...


class InProcess(Exchange):
    """All workers live in this process and take turns."""

    def __init__(self, num_workers: int) -> None:
        super().__init__(num_workers, range(num_workers))

    def agree(self, value: str) -> bool:
        return True

    def entries(self) -> list[Sent]:
        return self.ledger.entries

    def wait(self) -> None:
        pass

    def _gather(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors)

    def _add(self, tensors: Sequence[Tensor]) -> Tensor:
        total = tensors[0].clone()
        for tensor in tensors[1:]:
            total += tensor
        return total

    def _broadcast(self, tensor: Tensor) -> Tensor:
        return tensor


class Processes(Exchange):
    """One worker per process of the default group; gloo gets tensors on the CPU, nccl on the GPU."""

    def __init__(self) -> None:
        super().__init__(dist.get_world_size(), [dist.get_rank()])
        self._wire = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")

    def agree(self, value: str) -> bool:
        return ranks.agree(value)

    def entries(self) -> list[Sent]:
        return [entry for entries in ranks.everyones(self.ledger.entries) for entry in entries]

    def wait(self) -> None:
        dist.barrier()

    def _gather(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        mine = tensors[0].to(self._wire)
        found = [torch.empty_like(mine) for _ in range(self.num_workers)]
        dist.all_gather(found, mine)
        return [tensor.to(tensors[0].device) for tensor in found]

    def _add(self, tensors: Sequence[Tensor]) -> Tensor:
        total = tensors[0].to(self._wire, copy=True)
        dist.all_reduce(total)
        return total.to(tensors[0].device)

    def _broadcast(self, tensor: Tensor) -> Tensor:
        tensor = tensor.to(self._wire)
        dist.broadcast(tensor, src=0)
        return tensor.cpu()


def open_exchange(plan: MergeArguments, world_size: int) -> Exchange:
    """The connection between workers: processes of the default group, or all in this process (`simulate`).

    Raises:
        ValueError: as many processes as workers are needed, and there are not.
    """
    if plan.simulate:
        if world_size > 1:
            raise ValueError("`simulate` runs all workers in one process: start it without torchrun or accelerate")
        assert plan.num_workers is not None
        return InProcess(plan.num_workers)
    if world_size == 1 or plan.num_workers not in (None, world_size):
        count = plan.num_workers or 2
        raise ValueError(
            f"`merge_every` trains one worker per process, and here {'is' if world_size == 1 else 'are'} "
            f"{world_size}: start it with torchrun --nproc_per_node {count} -m glue_sparse.cli.train ..., or add "
            f"`simulate` true `num_workers` {count}"
        )
    return Processes()


def summary(entries: Sequence[Sent], num_workers: int, dense_bytes: int) -> dict[str, Any]:
    """The ledger of all workers as results.json has it.

    Args:
        entries: what all workers sent.
        dense_bytes: bytes that a worker sends per merge when everything trains.
    """
    num_merges = max((entry.merge for entry in entries), default=0)
    merges: list[dict[str, list[int]]] = [{} for _ in range(num_merges + 1)]
    for entry in entries:
        sent_received = merges[entry.merge].setdefault(entry.kind, [0, 0])
        sent_received[0] += entry.sent
        sent_received[1] += entry.received
    return {
        "num_workers": num_workers,
        "num_merges": num_merges,
        "sent_per_worker": sum(entry.sent for entry in entries) / num_workers,
        "received_per_worker": sum(entry.received for entry in entries) / num_workers,
        "dense_sent_per_worker": num_merges * dense_bytes,
        "merges": merges,  # kind -> [sent, received] by all workers; the first is what happened before any merge
    }
