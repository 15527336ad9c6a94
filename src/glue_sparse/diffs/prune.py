"""Magnitude pruning of a diff (diff pruning, stage 2): keep the entries that have moved furthest."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from glue_sparse.core import budgets
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.masks import Masks, Scores, narrow, num_active, select
from glue_sparse.core.parametrization import current_tensors, model_digest, read_entries
from glue_sparse.core.params import body_names
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.writing import bounds


@dataclass(frozen=True)
class Pruned:
    """A pruned diff and how it came about."""

    diff: SparseDiff
    budget: int
    """Entries of the body that were wanted; the diff holds fewer where fewer had moved at all."""
    smallest: float
    """Smallest change that was kept."""


def prune(
    diff: SparseDiff,
    model: nn.Module,
    head: tuple[str, ...],
    *,
    density: float | None = None,
    threshold: float | None = None,
    values: dict[str, Tensor] | None = None,
) -> Pruned:
    """Keep the largest changes |w - w0| of the body, over all tensors together; the head stays whole.

    Changes are those of the stored float32 values, ties go to the earlier entry (order of names, then position). The
    authors' code finds a threshold by bisection and counts and cuts the head too (Guo et al., 2021, section 3.3).

    Args:
        model: the plain base of the diff.
        head: names of the parameters to keep whole.
        density: kept fraction of all entries of the model, the head counted as kept.
        threshold: instead, keep each change above this.
        values: full tensors from which kept entries take their values, instead of the diff's.
    Raises:
        ValueError: another base, a diff of zeros, neither or both of density and threshold, or a head above density.
    """
    if (density is None) == (threshold is None):
        raise ValueError("give either a density or a threshold")
    _check_base(diff, model, head)
    base, body = current_tensors(model), body_names(model, head)
    found = {name: _change(diff, name, base[name]) for name in body}
    moved = {name: change for name, change in found.items() if change is not None}
    num_entries = sum(p.numel() for p in model.parameters())
    num_head = sum(model.get_parameter(name).numel() for name in head)
    budget = None if density is None else budgets.total(density, num_entries, num_head)
    kept = _largest(moved, budget, threshold)
    density = density or (num_active(kept) + num_head) / num_entries
    info = replace(diff.info, density=density, pruned_from=diff.digest())
    whole = {name: tensor for name, tensor in diff.whole.items() if name not in found}
    shapes = {name: tuple(base[name].shape) for name in body}
    pruned = replace(_collect(diff, base, kept, values or {}), shapes=shapes, whole=whole, info=info)
    smallest = min((float(moved[n][mask].min()) for n, mask in kept.items() if mask.any()), default=0.0)
    return Pruned(pruned, num_active(kept) if budget is None else budget, smallest)


def _check_base(diff: SparseDiff, model: nn.Module, head: tuple[str, ...]) -> None:
    if diff.info.inactive == "zero":
        raise ValueError("this diff is of a pruned model, whose zeros are changes too: no small diff can keep them")
    diff.check(model)
    if diff.info.base_digest not in ("", model_digest(model, head)):
        raise ValueError(f"this model differs from the base of the diff, {diff.info.base_model}: load exactly that one")


def _largest(moved: Scores, budget: int | None, threshold: float | None) -> Masks:
    """The largest changes, as many as the budget allows and have moved at all; or those above a threshold."""
    if budget is None:
        bounds.check("threshold", threshold, bounds.NOT_NEGATIVE)
        return {name: change > (threshold or 0.0) for name, change in moved.items()}
    return select(moved, min(budget, sum(int((change > 0).sum()) for change in moved.values())))


def _change(diff: SparseDiff, name: str, base: Tensor) -> Tensor | None:
    """Flat float32 |w - w0| of a tensor's stored entries; none where nothing is stored."""
    if name in diff.whole:
        return (diff.whole[name].float() - base.cpu().float()).abs().flatten().detach()
    if name in diff.indices:
        return (diff.values[name] - read_entries(base, diff.indices[name].long()).cpu().float()).abs()
    return None


def _collect(diff: SparseDiff, base: dict[str, Tensor], kept: Masks, values: dict[str, Tensor]) -> SparseDiff:
    indices, new, digests = {}, {}, {}
    for name, mask in kept.items():
        if not mask.any():
            continue
        stored = diff.indices[name][mask] if name in diff.indices else mask.nonzero().squeeze(1)
        indices[name] = narrow(stored, base[name].numel())
        if name in values:
            new[name] = read_entries(values[name], stored.long()).float()
        else:
            source = diff.values[name] if name in diff.indices else diff.whole[name].flatten()
            new[name] = source[mask].float()
        digests[name] = diff.digests.get(name) or tensor_digest(base[name])
    return replace(diff, indices=indices, values=new, digests=digests)
