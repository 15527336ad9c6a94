"""Several diffs of one base as one: sums, means, TIES, DARE and precedence, mixtures of two, and what is in all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from glue_sparse.core.chosen import narrow
from glue_sparse.core.options import MergeRule
from glue_sparse.diffs import merge_rules, one_base
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.merge_rules import RULES, Kept
from glue_sparse.diffs.merging import Merger, changes_of, merged
from glue_sparse.diffs.one_base import Base
from glue_sparse.writing.words import check_one_of


def merge(
    diffs: Sequence[SparseDiff], weights: Sequence[float] | None = None, how: MergeRule = "sum",
    base: Base | None = None, *, density: float | None = None, seed: int = 0, head: Sequence[str] | None = None,
    average_heads: bool = False,
) -> SparseDiff:  # fmt: skip
    """Diffs of one base as one diff; the head of each task stays apart, see `with_head`.

    Arithmetic is on changes, value - base, in float64, rounded once; an entry that a diff lacks is no change of it.
    What one diff alone decides, with weight 1, keeps its bits. Stored is each entry that any diff has and that was not
    trimmed or dropped from all; a tensor that any diff holds whole is whole. A diff of weight 0 counts as not given.

    Args:
        diffs: of one base; those of pruned models cannot be merged.
        weights: one per diff, by default 1; not for `priority`, and not negative for `ties`.
        how: one of `merge_rules.RULES`: the weighted `sum` of changes, their `mean` over all diffs, `ties`, `dare`, or
            `priority`, the value of the first diff that has the entry.
        base: a plain model, its tensors by name, or the folder of a saved model with the diffs' names; `priority`
            needs none.
        density: share of each diff's stored changes that stays, in (0, 1], of all tensors together; for `ties` by
            default all, since a sparse diff is trimmed already; `dare` needs it.
        seed: of what `dare` drops, together with the tensor's name and the place of the diff.
        head: names of tensors that each task keeps for itself; by default those that the base does not have.
        average_heads: take the weighted mean of heads too, which all diffs must have in one shape (runs of one task).
    Returns:
        A diff of the same base, without heads; buffers of whole numbers are the first diff's.
    Raises:
        ValueError: diffs or a base that do not belong together, or what a rule cannot use.
    """
    check_one_of("`how`", how, RULES)
    one_base.check(diffs)
    told = merge_rules.check_weights(weights, len(diffs), how)
    setting = Setting(how, merge_rules.check_density(density, how), seed)
    if base is None and RULES[how].needs_base:
        raise ValueError(f"`how` {how} is arithmetic on changes: give `base`, the model that the diffs belong to")
    return _merged(diffs, told, setting, base, head, average_heads)


class Setting(NamedTuple):
    """How diffs are merged, all of it checked."""

    how: MergeRule
    density: float
    seed: int


def _merged(
    diffs: Sequence[SparseDiff], weights: Sequence[float], setting: Setting, base: Base | None,
    head: Sequence[str] | None, average_heads: bool,
) -> SparseDiff:  # fmt: skip
    tensors = None if base is None else one_base.tensors_of(base)
    if base is not None and tensors is not None:
        one_base.check_base(diffs, base, tensors)
    own = one_base.own_names(diffs, base, tensors, head)
    if divided := sorted(own & {name for diff in diffs for name in diff.indices}):
        raise ValueError(f"{divided[0]} is a tensor of a head, which one diff holds whole, and another in entries: "
                         "name those tensors in `head` that are each task's own, and not this one")  # fmt: skip
    shapes = _shapes(diffs, own, tensors)
    count = {place: diff for place, diff in enumerate(diffs) if weights[place]}
    kept = [_kept(diff, place, setting, (*shapes,), tensors) for place, diff in count.items()]
    counting = torch.tensor([weights[place] for place in count], dtype=torch.float64)
    merger = Merger([*count.values()], counting, RULES[setting.how], setting.density, kept, tensors)
    held = {name for diff in count.values() for name in (*diff.indices, *diff.whole)}
    found = merged(merger, [name for name in shapes if name in held], shapes)
    whole = {**found.whole, **(_mean_heads(diffs, weights, sorted(own)) if average_heads else {})}
    return replace(found, whole=whole, info=one_base.common_info(diffs, method=f"merged by {setting.how}"))


def _shapes(
    diffs: Sequence[SparseDiff], own: set[str], tensors: Mapping[str, Tensor] | None
) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors but the tasks' own; ValueError where not all have the same."""
    found = {name: shape for diff in diffs for name, shape in diff.shapes.items()}
    whole = [(name, tuple(tensor.shape)) for diff in diffs for name, tensor in diff.whole.items() if name not in own]
    whole += [] if tensors is None else [(name, tuple(tensors[name].shape)) for name in dict(whole)]
    for name, shape in whole:
        if found.setdefault(name, shape) != shape:
            raise ValueError(f"{name} is {found[name]} in one place and {shape} in another, of diffs and base: all "
                             "must be of one base; if each task has its own, name it in `head`")  # fmt: skip
    return {name: shape for name, shape in found.items() if name not in own}


def _kept(
    diff: SparseDiff, place: int, setting: Setting, names: Sequence[str], tensors: Mapping[str, Tensor] | None
) -> Kept | None:
    """Which entries of a diff its rule keeps; none: all."""
    if setting.density == 1 or tensors is None:
        return None
    if setting.how == "ties":
        return merge_rules.trimmed(changes_of(diff, names, tensors), setting.density)
    stored = {**diff.values, **diff.whole}
    sizes = {name: stored[name].numel() for name in names if name in stored}
    return merge_rules.dropped(sizes, setting.density, setting.seed, place)


def _mean_heads(diffs: Sequence[SparseDiff], weights: Sequence[float], names: Sequence[str]) -> dict[str, Tensor]:
    """The weighted mean of tensors that the base does not have."""
    if sum(weights) == 0:
        raise ValueError("`weights` must not add up to 0 where heads are averaged")
    for name in names:
        if len({diff.whole[name].shape if name in diff.whole else None for diff in diffs}) > 1:
            raise ValueError(f"{name} is not in all diffs in one shape: heads of several tasks cannot be averaged")
    told = [(diff, weight) for diff, weight in zip(diffs, weights, strict=True) if weight]
    parts, numbers = zip(*told, strict=True)
    merger = Merger(parts, torch.tensor(numbers, dtype=torch.float64), RULES["mean"], 1.0, [None] * len(parts), None)
    return {name: merger.whole(name) for name in names}


def with_head(merged: SparseDiff, diff: SparseDiff) -> SparseDiff:
    """A merged diff made usable for the task of one diff: with its head, labels and way of pooling.

    Args:
        merged: what `merge` gave.
        diff: of the task, of the same base; it need not be one of those that were merged.
    Returns:
        A diff with the merged entries, and those tensors that `diff` holds whole and the merged one does not know.
    Raises:
        ValueError: they are not of one base.
    """
    one_base.check([merged, diff])
    known = merged.shapes.keys() | merged.whole.keys()
    own = {name: tensor for name, tensor in diff.whole.items() if name not in known}
    names = ("task", "labels", "num_labels", "pooling", "model_class", "vocab_size", "base_digest")
    facts = {name: getattr(diff.info, name) for name in names}
    return replace(merged, whole={**merged.whole, **own}, info=replace(merged.info, **facts))


def negate(diff: SparseDiff, base: Base) -> SparseDiff:
    """The diff whose changes point the other way, base - change, with the head as it is (Ilharco et al., 2023).

    Twice gives the values back, but for entries whose mirror image is no float32, which are rounded once.

    Args:
        diff: any but that of a pruned model.
        base: as for `merge`.
    Returns:
        A diff with the same entries.
    Raises:
        ValueError: as `merge`.
    """
    return with_head(merge([diff], [-1.0], base=base), diff)


def interpolate(one: SparseDiff, other: SparseDiff, t: float, base: Base) -> SparseDiff:
    """The model that lies between two: (1 - t) * one + t * other, entry by entry.

    Where one of them has no entry it stands at the base. At t = 0 and t = 1 the entries are those of one diff, with the
    same bits. Heads that both have in one shape are mixed too, others are left out.

    Args:
        one: at t = 0.
        other: at t = 1.
        t: the place between them; beyond [0, 1] the line goes on.
        base: as for `merge`.
    Returns:
        A diff of the same base.
    Raises:
        ValueError: as `merge`.
    """
    own = one_base.own_names([one, other], base, one_base.tensors_of(base), None)
    shapes = [{name: diff.whole[name].shape for name in own & diff.whole.keys()} for diff in (one, other)]
    weights = [1.0 - t, float(t)]
    return merge([one, other], weights, base=base, average_heads=shapes[0] == shapes[1])


def intersect(diffs: Sequence[SparseDiff]) -> SparseDiff:
    """The first diff, restricted to entries that are active in all; a tensor that a diff holds whole is so everywhere.

    Args:
        diffs: of one base.
    Returns:
        A diff with the values of the first, and those of its whole tensors that all hold whole, such as its head.
    Raises:
        ValueError: diffs that are not of one base.
    """
    one_base.check(diffs)
    first, others = diffs[0], diffs[1:]
    digests = {name: digest for diff in diffs for name, digest in diff.digests.items()}
    whole = {name: tensor for name, tensor in first.whole.items() if all(name in diff.whole for diff in others)}
    shapes = {name: shape for diff in diffs for name, shape in diff.shapes.items() if name not in whole}
    found = SparseDiff({}, {}, whole, shapes, {}, first.info)
    for name in first.indices.keys() | (first.whole.keys() - whole.keys()):
        places = first.positions(name) if name in first.indices else torch.arange(first.whole[name].numel())
        active = torch.ones(len(places), dtype=torch.bool)
        for diff in others:
            if name not in diff.whole:
                active &= torch.isin(places, diff.positions(name))
        if active.any():
            values = first.values[name] if name in first.indices else first.whole[name].reshape(-1).float()
            found.indices[name] = narrow(places[active], torch.Size(shapes[name]).numel())
            found.values[name], found.digests[name] = values[active], digests[name]
    return found
