"""Diffs that belong together: all of one base, which is read where what they change has to be known."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.parametrization import current_tensors, is_attached
from glue_sparse.core.params import head_names
from glue_sparse.diffs import restoring
from glue_sparse.diffs.between import StoredTensors
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo

Base = nn.Module | Mapping[str, Tensor] | str | Path
"""A plain model, its tensors by name as `current_tensors` gives them, or the folder of a saved model whose tensors have
the names that the diffs have for them."""


def check(diffs: Sequence[SparseDiff]) -> None:
    """Raise a ValueError unless all diffs are of one base, and none is of a pruned model."""
    if not diffs:
        raise ValueError("there is no diff: give at least one")
    first = diffs[0]
    for place, diff in enumerate(diffs, 1):
        if diff.info.inactive == "zero":
            raise ValueError(f"diff {place} is of a pruned model, whose zeros are changes too: only diffs whose other "
                             "entries keep the base's values can be merged")  # fmt: skip
        if diff.info.dtype != first.info.dtype:
            raise ValueError(f"diff {place} is of a base in {diff.info.dtype}, and the first of one in "
                             f"{first.info.dtype}: all must be of one base")  # fmt: skip
    check_agree(diffs)


def check_agree(diffs: Sequence[SparseDiff]) -> None:
    """Raise a ValueError that names the first tensor in which the bases of diffs differ."""
    known: dict[str, dict[str, tuple[Any, int]]] = {"has another shape": {}, "has other weights": {}, "is another": {}}
    for place, diff in enumerate(diffs, 1):
        is_whole = diff.info.base_digest and not diff.digests  # no tensor tells its base
        told = {diff.info.model_class: diff.info.base_digest} if is_whole else {}
        for what, found in zip(known, (diff.shapes, diff.digests, told), strict=True):
            for name, value in found.items():
                was, by = known[what].setdefault(name, (value, place))
                if was != value:
                    raise ValueError(f"{name or 'the model'} {what} in the base of diff {place} than in that of diff "
                                     f"{by}: all must be of one base")  # fmt: skip


def tensors_of(base: Base) -> Mapping[str, Tensor]:
    """The tensors of a base by name; those of a folder are read when they are asked for.

    Raises:
        ValueError: an attached model, or a folder without weights in safetensors format.
    """
    if isinstance(base, nn.Module):
        if is_attached(base):
            raise ValueError("the base has active entries of its own: call detach(model) first, or load it anew")
        return current_tensors(base)
    return StoredTensors(Path(base)) if isinstance(base, str | Path) else base


def check_base(diffs: Sequence[SparseDiff], base: Base, tensors: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless all diffs are of this base."""
    checked: set[str] = set()
    for diff in diffs:
        for name, digest in diff.digests.items():
            if name not in tensors:
                raise ValueError(f"the base has no tensor {name}; the diffs belong to {diff.info.base_model}")
            if name not in checked and tensor_digest(tensors[name]) != digest:
                raise ValueError(f"{name} differs from the base of these diffs, {diff.info.base_model}: give exactly "
                                 f"that model (dtype {diff.info.dtype}), without a task's weights in it")  # fmt: skip
            checked.add(name)
        if isinstance(base, nn.Module):
            restoring.check_body(diff, base)


def own_names(
    diffs: Sequence[SparseDiff], base: Base | None, tensors: Mapping[str, Tensor] | None, head: Sequence[str] | None
) -> set[str]:
    """Names of the tensors stored whole that are each task's own: its head, which the base does not have.

    Args:
        head: names that are such a head; by default the `head_names` of a model.
    """
    whole = {name for diff in diffs for name in diff.whole}
    if head is None and isinstance(base, nn.Module):
        head = head_names(base)
    if tensors is None:
        return whole - {name for diff in diffs for name in diff.shapes} | whole & {*(head or ())}
    return {name for name in whole if name not in tensors or name in (head or ())}


def common_info(diffs: Sequence[SparseDiff], **facts: Any) -> DiffInfo:
    """Facts of what is made of several diffs: those in which all agree, the names of all tasks, and `facts`.

    The base is called what the first calls it.
    """
    infos, default = [diff.info for diff in diffs], DiffInfo()
    told = {one.name: getattr(infos[0], one.name) for one in fields(DiffInfo)}
    same = {name: value if all(getattr(info, name) == value for info in infos) else getattr(default, name)
            for name, value in told.items()}  # fmt: skip
    tasks = " + ".join(dict.fromkeys(info.task for info in infos if info.task))
    alone = {"base_model": infos[0].base_model, "task": tasks, "density": None, "pruned_from": ""}
    return replace(default, **{**same, **alone, **facts})
