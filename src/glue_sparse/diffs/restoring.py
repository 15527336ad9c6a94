"""Training goes on from a diff: all of it is checked against the model, and only then is anything written."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from glue_sparse.core import tiles
from glue_sparse.core.active import ActiveEntries, active_tensors, attach
from glue_sparse.core.chosen import positions_of
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.finite import check_model
from glue_sparse.core.masks import Masks
from glue_sparse.core.parametrization import (
    current_tensors,
    frozen_tensors,
    is_attached,
    model_digest,
    original,
    persistent_buffers,
    wholly_active,
    write_entries,
)
from glue_sparse.core.params import head_names
from glue_sparse.core.reindexing import reindex
from glue_sparse.core.stored import check_like
from glue_sparse.diffs import frozen
from glue_sparse.diffs.identity import DiffInfo, pooling_of


class Stored(Protocol):
    """What is read of a `SparseDiff`, whose attributes and methods these are."""

    @property
    def indices(self) -> dict[str, Tensor]: ...
    @property
    def values(self) -> dict[str, Tensor]: ...
    @property
    def whole(self) -> dict[str, Tensor]: ...
    @property
    def shapes(self) -> dict[str, tuple[int, ...]]: ...
    @property
    def digests(self) -> dict[str, str]: ...
    @property
    def info(self) -> DiffInfo: ...

    def positions(self, name: str) -> Tensor:
        """See `SparseDiff.positions`."""
        ...

    def masks(self, model: nn.Module) -> Masks:
        """See `SparseDiff.masks`."""
        ...

    def check(self, model: nn.Module) -> None:
        """See `SparseDiff.check`."""


def check_base(diff: Stored, model: nn.Module, fingerprint: bool) -> None:
    """Raise a ValueError unless `model` is the base that a diff was made from; see `SparseDiff.check`."""
    if fingerprint:
        check_model(model)
        check_pooling(diff.info, model)
    tensors = current_tensors(model)
    stored = {**diff.shapes, **{name: tuple(t.shape) for name, t in diff.whole.items()}}
    check_shapes(diff.info, stored, {name: tuple(t.shape) for name, t in tensors.items()})
    for name, tensor in diff.whole.items():
        check_like(name, tensor, tensors[name].shape, tensors[name].dtype)
    if fingerprint:
        check_digests(diff.info, diff.digests, lambda name: tensor_digest(tensors[name]))
        check_body(diff, model)


def check_shapes(info: DiffInfo, stored: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> None:
    """Raise a ValueError unless a model has the tensors that a diff names, in these shapes."""
    for name, shape in stored.items():
        if name not in found:
            raise ValueError(f"this model has no tensor {name}; the diff belongs to {info.base_model}")
        if found[name] != shape:
            raise ValueError(f"{name} has shape {found[name]}, but the diff was made for {shape} of {info.base_model}")


def check_digests(info: DiffInfo, stored: Mapping[str, str], found: Callable[[str], str]) -> None:
    """Raise a ValueError unless tensors of a model are those of a diff's base.

    Args:
        found: name -> digest of the model's tensor.
    """
    for name, digest in stored.items():
        if found(name) != digest:
            raise ValueError(
                f"{name} differs from the base of this diff, {info.base_model}: load exactly that model "
                f"(dtype {info.dtype}), without another task's weights in it"
            )


def check_pooling(info: DiffInfo, model: nn.Module) -> None:
    """Raise a ValueError for a model that has all tensors of a diff, but whose head reads something else of them."""
    if info.pooling not in (None, found := pooling_of(model)):
        raise ValueError(f"the head of this diff reads `pooling` {info.pooling}, and that of this model {found}: "
                         "`load_base(diff.info)` makes the model that it belongs to")  # fmt: skip


def check_body(diff: Stored, model: nn.Module, digests: Mapping[str, str] | None = None) -> None:
    """Raise a ValueError where a diff without active entries, so of no tensor's digest, is of another base.

    Its base's digest is that of all but a head, which the diff holds whole: that of the network, none, or all of that.

    Args:
        digests: of all tensors of the base, where they are known.
    """
    if diff.digests or not diff.info.base_digest:
        return
    if not current_tensors(model).keys() - diff.whole.keys() - persistent_buffers(model).keys():
        return
    heads = (head_names(model), (), tuple(diff.whole))
    if all(model_digest(model, head, digests) != diff.info.base_digest for head in heads):
        raise ValueError(f"this model differs from the base of this diff, {diff.info.base_model}: load that one")


def check(diff: Stored, model: nn.Module, masks: Masks | None) -> None:
    """Raise a ValueError for whatever would keep `put` from its end; changes nothing."""
    if is_attached(model):
        _check_attached(diff, model, masks)
    else:
        diff.check(model)
        frozen.check(diff.whole, model)
        if masks is None:
            diff.masks(model)
    for name in masks or {}:
        if name in diff.whole:
            raise ValueError(f"{name} has active entries, and this diff holds it whole")
        if not torch.isin(positions_of(masks or {}, name).cpu(), diff.positions(name)).all():
            raise ValueError(f"this diff has no value for some of the active entries of {name}")


def _check_attached(diff: Stored, model: nn.Module, masks: Masks | None) -> None:
    attached = dict(active_tensors(model))
    if unknown := sorted((diff.indices.keys() | (masks or {}).keys()) - attached.keys()):
        raise ValueError(f"{unknown[0]} of this diff has no active entries in the model")
    for name, entries in attached.items():
        if diff.digests.get(name, entries.base_digest) != entries.base_digest:
            raise ValueError(f"{name} differs from the base of this diff, {diff.info.base_model}")
        if diff.shapes.get(name, tuple(entries.shape)) != tuple(entries.shape):
            raise ValueError(f"{name} has shape {tuple(entries.shape)}, but the diff was made for {diff.shapes[name]}")
        _check_entries(diff, name, entries, masks)
    tensors = _whole_tensors(model)
    for name, tensor in diff.whole.items():
        if name not in tensors:
            raise ValueError(f"this diff holds {name} whole, and the model does not")
        check_like(name, tensor, tensors[name].shape, tensors[name].dtype)


def _check_entries(diff: Stored, name: str, entries: ActiveEntries, masks: Masks | None) -> None:
    if entries.inactive != diff.info.inactive:
        raise ValueError(f"inactive entries of {name} are {entries.inactive}, and of this diff {diff.info.inactive}")
    if entries.inactive == "frozen":  # what has trained and is not in the diff cannot be what the base has there
        changed = entries.mask() if entries.explored is None else entries.mask() | entries.explored
        if not torch.isin(changed.flatten().nonzero().squeeze(1).cpu(), diff.positions(name)).all():
            raise ValueError(f"entries of {name} have trained that this diff does not hold: restore it into the base")
    if masks is None:
        if not torch.equal(entries.indices.cpu(), diff.positions(name)):
            raise ValueError(f"the active entries of {name} are not those of this diff")
    elif name in masks:
        if masks[name].shape != entries.shape:
            raise ValueError(f"the mask of {name} is {tuple(masks[name].shape)}, not {tuple(entries.shape)}")
        tiles.gathered(masks[name], entries.block_size)


def put(diff: Stored, model: nn.Module, masks: Masks | None, block_size: int) -> None:
    """Make entries of a diff the active ones, with the stored values, in a model that `check` has passed."""
    if not is_attached(model):
        attach(model, diff.masks(model) if masks is None else masks, diff.info.inactive, block_size)
    elif masks is not None:
        reindex(model, masks)
    for name, entries in active_tensors(model):
        if name in diff.values:
            weight, stored = original(model, name), diff.positions(name)
            write_entries(weight, stored.to(weight.device), diff.values[name])
            entries.values.data.copy_(diff.values[name][torch.searchsorted(stored, entries.indices.cpu())])
            entries.fold()
    tensors = _whole_tensors(model)
    for name, tensor in diff.whole.items():
        tensors[name].data.copy_(tensor)


def _whole_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**wholly_active(model), **frozen_tensors(model), **persistent_buffers(model)}
