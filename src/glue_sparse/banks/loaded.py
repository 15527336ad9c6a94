"""What a bank holds of a task that is ready: positions and bits to write, and tensors to point at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glue_sparse.core.digests import bits, tensor_digest
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo

Bits = Any
"""A tensor's bits as integers, flat: NumPy's on the CPU, where it writes faster than torch, else a tensor."""


def flat_bits(tensor: Tensor) -> Bits:
    """The bits of a contiguous tensor in the same memory."""
    flat = bits(tensor.detach()).view(-1)
    return flat.numpy() if flat.device.type == "cpu" else flat


def moved(found: Bits, device: torch.device) -> Bits:
    """The same on a device."""
    if isinstance(found, np.ndarray) and device.type == "cpu":
        return found
    tensor = (torch.from_numpy(found) if isinstance(found, np.ndarray) else found).to(device)
    return tensor.numpy() if device.type == "cpu" else tensor


@dataclass
class Entries:
    """Of one tensor.

    Attributes:
        places: [k] int64, sorted flat positions.
        values: [k] bits of the task's values.
        kept: [k] bits of the base's values there; none before the base was seen.
    """

    places: Bits
    values: Bits
    kept: Bits | None = None

    def to(self, device: torch.device) -> "Entries":
        """The same on a device."""
        kept = None if self.kept is None else moved(self.kept, device)
        return Entries(moved(self.places, device), moved(self.values, device), kept)


@dataclass
class Stack:
    """One diff, or several of which the later wins where two have a position.

    Attributes:
        places, values: parameter name -> [k] flat positions in order, and float32 values.
        whole: tensors of the task in place of the base's.
        head: facts of the last task that holds a head; none where no task does.
    """

    places: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)
    head: DiffInfo | None = None

    def add(self, diff: SparseDiff, dtypes: Mapping[str, torch.dtype], head: Sequence[str]) -> None:
        """Put one more diff on top.

        Args:
            dtypes: of the base's tensors.
            head: names of the base's head.
        Raises:
            ValueError: entries of a tensor that an earlier diff holds whole in another shape.
        """
        for name, tensor in diff.whole.items():
            self._forget(name)
            self.whole[name] = tensor.clone()  # what is in use may be written to, and the diff is the caller's
        if not diff.whole.keys().isdisjoint(head):
            self.head = diff.info
        for name, places in diff.indices.items():
            if diff.info.inactive == "zero":
                self._forget(name)
                self.whole[name] = torch.zeros(diff.shapes[name], dtype=dtypes[name])
            if name in self.whole:
                self._write(name, places.long(), diff)
            else:
                self._join(name, places.long(), diff.values[name])

    def _forget(self, name: str) -> None:
        for held in (self.places, self.values, self.whole):
            held.pop(name, None)

    def _write(self, name: str, places: Tensor, diff: SparseDiff) -> None:
        tensor = self.whole[name]
        if tuple(tensor.shape) != diff.shapes[name]:
            raise ValueError(f"{name} has shape {diff.shapes[name]} in a later task of the stack, and an earlier one "
                             f"holds it whole as {tuple(tensor.shape)}: stack tasks of one head")  # fmt: skip
        tensor.view(-1)[places] = diff.values[name].to(tensor.dtype)

    def _join(self, name: str, places: Tensor, values: Tensor) -> None:
        if name in self.places:
            places = torch.cat([places, self.places[name]])  # the first of equal ones is kept, so the later first
            values = torch.cat([values, self.values[name]])
            found, first = np.unique(places.numpy(), return_index=True)
            places, values = torch.from_numpy(found), values[torch.from_numpy(first)]
        self.places[name], self.values[name] = places, values


@dataclass
class Loaded:
    """A task, or a stack of tasks, ready to be written into a base.

    Attributes:
        entries: parameter name -> what to write.
        whole: parameter or buffer name -> what stands in the place of the base's tensor.
        digests: of `whole`, as it was loaded.
        head: facts of the task whose head it has; none where it has none.
        is_kept: whether its entries know what the base has at their positions.
    """

    entries: dict[str, Entries]
    whole: dict[str, Tensor]
    digests: dict[str, str]
    head: DiffInfo | None
    is_kept: bool = False

    @classmethod
    def of(cls, stack: Stack, like: Mapping[str, Tensor]) -> "Loaded":
        """From what was stacked.

        Args:
            like: the base's tensors: entries are written in their types, on their devices.
        """
        counts = [len(places) for places in stack.places.values()]
        places = torch.cat([*stack.places.values(), torch.zeros(0, dtype=torch.long)]).split(counts) if counts else ()
        values = torch.cat([*stack.values.values()]).split(counts) if counts else ()
        entries = {}
        for name, at, value in zip(stack.places, places, values, strict=True):
            base = like[name]
            ready = flat_bits(value.to(base.dtype).contiguous())
            entries[name] = Entries(at.numpy(), ready).to(base.device)
        digests = {name: tensor_digest(tensor) for name, tensor in stack.whole.items()}
        whole = {name: tensor.to(like[name].device) for name, tensor in stack.whole.items()}
        return cls(entries, whole, digests, stack.head)
