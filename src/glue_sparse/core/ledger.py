"""What a rank hands to collectives and sends: bytes by kind, counted where torch calls them."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Collective(NamedTuple):
    """How a collective is called.

    Attributes:
        handed_in: number of the argument that a rank hands in.
        sent: (bytes handed in, ranks) -> bytes that each rank sends where it is done in a ring, as for large messages.
        kind: what it is for, where nothing else is said: FSDP gathers weights and scatters gradients.
    """

    handed_in: int
    sent: Callable[[int, int], float]
    kind: str


_GATHER = _Collective(1, lambda size, count: size * (count - 1), "weights")
_SCATTER = _Collective(1, lambda size, count: size * (count - 1) / count, "gradients")
_EXCHANGE = _SCATTER._replace(kind="other")
_REDUCE = _Collective(0, lambda size, count: 2 * size * (count - 1) / count, "other")
_BROADCAST = _Collective(0, lambda size, count: size, "other")
_COLLECTIVES = {
    "_allgather_base_": _GATHER, "allgather_": _GATHER, "allgather_into_tensor_coalesced_": _GATHER,
    "_reduce_scatter_base_": _SCATTER, "reduce_scatter_": _SCATTER, "reduce_scatter_tensor_coalesced_": _SCATTER,
    "alltoall_base_": _EXCHANGE, "alltoall_": _EXCHANGE, "allreduce_": _REDUCE, "broadcast_": _BROADCAST,
    # those of sharded tensors, as where the norm of their gradients is taken
    "all_gather_into_tensor": _GATHER._replace(handed_in=0), "reduce_scatter_tensor": _SCATTER._replace(handed_in=0),
    "all_to_all_single": _EXCHANGE._replace(handed_in=0), "all_reduce": _REDUCE, "broadcast": _BROADCAST,
}  # fmt: skip
_SPACES = ("c10d", "_c10d_functional")
_KIND: ContextVar[str] = ContextVar("kind", default="")


@contextmanager
def counted_as(kind: str) -> Iterator[None]:
    """Within the block collectives are of this kind."""
    token = _KIND.set(kind)
    try:
        yield
    finally:
        _KIND.reset(token)


class Ledger(TorchDispatchMode):
    """Within its block it counts what this rank hands to collectives. Each operation costs some time, so count a step.

    Attributes:
        handed_in: kind -> bytes: `weights` that are put together, `gradients`, and `other`.
        sent: kind -> bytes that the rank sends of it where collectives are rings.
        calls: kind -> number of collectives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.handed_in: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch for each operation."""
        if DTensor in types:  # goes on to plain tensors, and to collectives between them
            return NotImplemented
        if func.namespace in _SPACES and (found := _COLLECTIVES.get(func._opname)):
            size = sum(one.nbytes for one in tree_leaves(args[found.handed_in]) if isinstance(one, Tensor))
            kind = _KIND.get() or found.kind
            self.handed_in[kind] += size
            self.sent[kind] += round(found.sent(size, _count(args)))
            self.calls[kind] += 1
        return func(*args, **(kwargs or {}))


def _count(args: Any) -> int:
    """Ranks of the group that is among the arguments, itself or by its name, which is the last text of them."""
    for one in reversed(args):
        try:
            group: Any = _group_of(one) if isinstance(one, str) else dist.ProcessGroup.unbox(one)
            return group.size()
        except (AttributeError, RuntimeError, TypeError):
            continue
    return dist.get_world_size()


def _group_of(name: Any) -> Any:
    return dist.distributed_c10d._resolve_process_group(name)  # pyright: ignore[reportPrivateImportUsage]
