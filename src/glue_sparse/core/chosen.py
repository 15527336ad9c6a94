"""Masks that take little memory until one is read: flat positions, or a bit for each entry where that is less."""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from glue_sparse.core import pieces

_DENSE = 1 / 32
"""Above it a bit for each entry takes less than an int32 for each active one."""


@dataclass(frozen=True)
class _Held:
    """One mask.

    Attributes:
        data: [k] sorted flat positions, int32 where they fit, or uint8 of eight entries each.
        device: of the mask when it is read.
    """

    data: Tensor
    shape: torch.Size
    device: torch.device

    @property
    def positions(self) -> Tensor:
        """[k] int64, on the mask's device."""
        if self.data.dtype == torch.uint8:
            return self.mask.flatten().nonzero().squeeze(1)
        return self.data.long()

    @property
    def mask(self) -> Tensor:
        """The bool tensor."""
        if self.data.dtype == torch.uint8:
            return unpack(self.data, self.shape).to(self.device)
        return mask_of(self.data, self.shape)


class Chosen(MutableMapping[str, Tensor]):
    """Parameter name -> bool tensor, as in a dict. A mask that is read is kept as that from then on.

    `positions_of`, `count_of`, `shape_of` and `without` ask of masks without reading them so.
    """

    def __init__(self) -> None:
        self._masks: dict[str, _Held | Tensor] = {}

    def hold(self, name: str, positions: Tensor, shape: torch.Size) -> None:
        """Put a mask by its [k] sorted flat positions, on the device where it is to be read."""
        if len(positions) > _DENSE * shape.numel():
            self.hold_mask(name, mask_of(positions, shape))
        else:
            self._masks[name] = _Held(narrow(positions, shape.numel()), shape, positions.device)

    def hold_mask(self, name: str, mask: Tensor) -> None:
        """Put a bool tensor as a bit for each entry."""
        self._masks[name] = _Held(pack(mask), mask.shape, mask.device)

    def over(self, shapes: Mapping[str, torch.Size]) -> Self:
        """The same masks among empty ones, in the order of `shapes`, which names all."""
        found = type(self)()
        nothing = torch.zeros(0, dtype=torch.int32)
        for name, shape in shapes.items():
            found._masks[name] = self._masks.get(name, _Held(nothing, shape, nothing.device))
        return found

    def without(self, names: set[str]) -> Self:
        """All masks but these."""
        found = type(self)()
        found._masks = {name: held for name, held in self._masks.items() if name not in names}
        return found

    def held(self, name: str) -> _Held | Tensor:
        """A mask as it is held."""
        return self._masks[name]

    def __getitem__(self, name: str) -> Tensor:
        held = self._masks[name]
        if isinstance(held, _Held):
            self._masks[name] = held = held.mask
        return held

    def __setitem__(self, name: str, mask: Tensor) -> None:
        self._masks[name] = mask

    def __delitem__(self, name: str) -> None:
        del self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} masks)"


def _held(masks: Mapping[str, Tensor], name: str) -> _Held | Tensor:
    return masks.held(name) if isinstance(masks, Chosen) else masks[name]


def positions_of(masks: Mapping[str, Tensor], name: str) -> Tensor:
    """[k] int64 sorted flat positions of a mask, on its device."""
    held = _held(masks, name)
    return held.positions if isinstance(held, _Held) else held.detach().flatten().nonzero().squeeze(1)


def places_of(masks: Mapping[str, Tensor], name: str) -> Tensor:
    """The same as they are held where that is positions, int32 where they fit; not to be changed."""
    held = _held(masks, name)
    return held.data if isinstance(held, _Held) and held.data.dtype != torch.uint8 else positions_of(masks, name)


def count_of(masks: Mapping[str, Tensor], name: str) -> int:
    """Active entries of a mask."""
    held = _held(masks, name)
    if isinstance(held, Tensor):
        return int(held.sum())
    return len(held.data) if held.data.dtype != torch.uint8 else int(np.bitwise_count(held.data.numpy()).sum())


def density_of(masks: Mapping[str, Tensor], name: str) -> float:
    """Active fraction of a masked tensor; 1 for one without entries."""
    size = shape_of(masks, name).numel()
    return count_of(masks, name) / size if size else 1.0


def shape_of(masks: Mapping[str, Tensor], name: str) -> torch.Size:
    """The shape of a mask."""
    return _held(masks, name).shape


def bools_of(masks: Mapping[str, Tensor], name: str) -> Iterator[Tensor]:
    """A mask in flat order as bool vectors on the CPU; of one that is held as positions only one exists at a time."""
    held = _held(masks, name)
    if isinstance(held, Tensor) or held.data.dtype == torch.uint8:
        mask = held if isinstance(held, Tensor) else held.mask
        yield mask.detach().cpu().contiguous().view(-1)
        return
    positions, num_entries = held.data.cpu(), held.shape.numel()
    for start in range(0, num_entries, pieces.SIZE):
        stop = min(start + pieces.SIZE, num_entries)
        low, high = torch.searchsorted(positions, torch.tensor([start, stop], dtype=positions.dtype)).tolist()
        yield mask_of(positions[low:high].long() - start, (stop - start,))


def without(masks: MutableMapping[str, Tensor], names: set[str]) -> MutableMapping[str, Tensor]:
    """All masks but these."""
    if isinstance(masks, Chosen):
        return masks.without(names)
    return {name: mask for name, mask in masks.items() if name not in names}


def mask_of(indices: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The bool tensor of a shape that is true at flat positions, on their device."""
    mask = torch.zeros(tuple(shape), dtype=torch.bool, device=indices.device)
    mask.view(-1)[indices.long()] = True
    return mask


def narrow(indices: Tensor, num_entries: int) -> Tensor:
    """Flat positions among `num_entries` as int32 where it fits, else as int64."""
    return indices.to(torch.int32 if num_entries <= torch.iinfo(torch.int32).max else torch.int64)


def pack(mask: Tensor) -> Tensor:
    """A bool tensor as uint8 numbers of eight entries each."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpack(bits: Tensor, shape: torch.Size) -> Tensor:
    """What `pack` was given."""
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=shape.numel()).astype(bool)).view(shape)
