"""Processes meet before they form a group, so that none waits for one that has failed or was told something else."""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from glue_sparse.arguments.run import Arguments
from glue_sparse.core.content import Fact, fact
from glue_sparse.core.ranks import refuse_difference, refuse_failure
from glue_sparse.training.agreement import OF_A_RANK, packages

PATIENCE = timedelta(minutes=5)
"""How long a process waits for the others to start."""

PLACES = frozenset({"config", "data_dir", "train_file", "validation_file", "test_file"})
"""Flags that say where a machine has its files; what is in them is compared when it is read."""

_STORES: list[Any] = []
"""Kept, since the first rank's holds the server over which the group is formed."""


def agreed(read: Callable[[], Arguments]) -> Arguments:
    """What `read` gives, where it gives the same on all ranks, with the same packages; environment as of torchrun.

    Raises:
        ValueError: on all ranks, where it raises on one, where they differ, or where one does not come.
    """
    found: Arguments | None = None
    failed: BaseException | None = None
    try:
        found = read()
    except (Exception, SystemExit) as error:
        failed = error
    facts = {} if found is None else {**packages(), **flags(found.values)}
    ended = "its command line ends it" if isinstance(failed, SystemExit) else str(failed)
    sentence = None if failed is None else ended
    said = _exchanged({"failed": sentence, "facts": facts})
    if failed is not None:
        raise failed
    refuse_failure([one["failed"] for one in said])
    refuse_difference([{name: Fact(*value) for name, value in one["facts"].items()} for one in said])
    assert found is not None
    return found


def flags(values: Mapping[str, Any]) -> dict[str, Fact]:
    """The flags that all ranks must be given alike."""
    return {f"`{name}`": fact(value) for name, value in values.items() if name not in OF_A_RANK | PLACES}


def _exchanged(own: dict[str, Any]) -> list[dict[str, Any]]:
    """What each rank says, in their order; all have read it when this returns on the first one."""
    try:
        store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
        _STORES.append(store)
        store = PrefixStore("glue_sparse", store)
        store.set(f"said {rank}", json.dumps(own))
        said = [json.loads(store.get(f"said {other}")) for other in range(count)]
        store.set(f"read {rank}", "")
        if rank == 0:  # which holds the store: nobody can ask it any more when it ends
            store.wait([f"read {other}" for other in range(count)])
    except dist.DistError as error:
        raise ValueError(f"not all processes of this run have come within {PATIENCE}: start as many as it is told "
                         "there are") from error  # fmt: skip
    return said
