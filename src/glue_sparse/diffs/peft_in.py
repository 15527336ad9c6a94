"""A diff of an adapter that peft has trained: exact where it is sparse, else the largest of its changes."""

import logging
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

import torch
from torch import nn

from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.masks import narrow
from glue_sparse.core.parametrization import current_tensors, is_attached, persistent_buffers, read_entries
from glue_sparse.core.params import body_names, head_names
from glue_sparse.diffs import between, card, peft_merge
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo, base_named_by, facts_of, seen_in
from glue_sparse.diffs.peft_files import KINDS, Adapter, Kind, check_shapes, check_untied
from glue_sparse.diffs.prune import prune

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FromPeft:
    """A diff of an adapter, and what it lacks of it.

    Attributes:
        diff: for the adapter's base.
        method: of peft, in lower case.
        error: Frobenius norm of the changes that were cut, over that of all changes of the body; 0 is exact.
        worst: the same of the tensor where it is largest.
        worst_name: of that tensor; empty where nothing was cut.
    """

    diff: SparseDiff
    method: str
    error: float = 0.0
    worst: float = 0.0
    worst_name: str = ""

    def __str__(self) -> str:
        """A sentence on the error."""
        if not self.worst_name:
            return f"All changes of the {self.method} adapter are in this diff, with the bits of the merged model."
        return (f"Of the {self.method} adapter the largest changes were kept: the relative error (Frobenius norm of "
                f"what was cut) is {self.error:.4f}, and {self.worst:.4f} in {self.worst_name}.")  # fmt: skip

    def save_pretrained(self, folder: str | Path) -> Path:
        """As `SparseDiff.save_pretrained`, with the sentence on the error in the card."""
        path = self.diff.save_file(folder)
        text = card.of_diff(self.diff.contents, card.place_of(path.parent))
        card.write(text.replace("\n## Results\n", f"\n{self}\n\n## Results\n", 1), path.parent)
        return path


def convert(
    adapter: Adapter, base: nn.Module, density: float | None = None, threshold: float | None = None
) -> FromPeft:
    """See `models.of_peft.from_peft`."""
    if is_attached(base):
        raise ValueError("the base has active entries of its own: give the plain model that the adapter belongs to")
    if density is not None and threshold is not None:
        raise ValueError("give a `density` or a `threshold`, not both")
    check_untied(_touched(adapter, base), base)
    kind = KINDS.get(adapter.method)
    full = (_sparse(adapter, kind, base) if kind else None) or peft_merge.changes(adapter, base)
    full = replace(full, info=_info(adapter, base))
    if density is None and threshold is None:
        _check_sparse(full, adapter, base)
        found = FromPeft(full, adapter.method)
    else:
        names = {name for name, _ in base.named_parameters()}
        head = tuple(sorted(full.whole.keys() & names & {*head_names(base)}))
        found = _error(full, prune(full, base, head, density=density, threshold=threshold).diff, adapter.method, base)
    logger.info("%s", found)
    return found


def _touched(adapter: Adapter, base: nn.Module) -> set[str]:
    """Names of the modules whose tensors an adapter changes or replaces."""
    modules, found = {name for name, _ in base.named_modules()} - {""}, set[str]()
    for name in adapter.named():
        parts = name.split(".")
        known = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
        found |= {next((one for one in known if one in modules), "")}
    return found


def _sparse(adapter: Adapter, kind: Kind, base: nn.Module) -> SparseDiff | None:
    """The entries that the file names, those without a change too; none where it holds more than entries."""
    tensors, named = current_tensors(base), adapter.named()
    layers = [name.removesuffix(f".{kind.changes}") for name in named if name.endswith(f".{kind.changes}")]
    rest = named.keys() - {f"{layer}.{part}" for layer in layers for part in (kind.changes, kind.places)}
    if any(f"{layer}.{kind.places}" not in named for layer in layers) or any(name not in tensors for name in rest):
        return None
    check_shapes({name: named[name] for name in rest}, tensors)
    found = between.Found({}, {}, {}, {}, {})
    for layer in layers:
        name = f"{layer}.weight"
        if name not in tensors:
            raise ValueError(f"this model has no {name}, which the adapter changes: it is of another base")
        weight, stored = tensors[name].detach().cpu(), adapter.counts.get(name)
        try:
            entries = kind.entries(adapter, layer, weight.shape)
        except ValueError as error:
            raise ValueError(f"{name} {[*weight.shape]} is not what this adapter changes: {error}") from error
        positions, order = entries.positions[:stored].sort()  # what pads it to the size that peft asks for is behind
        found.indices[name] = narrow(positions, weight.numel())
        found.values[name] = kind.added(read_entries(weight, positions), entries.changes[:stored][order]).float()
        found.digests[name] = tensor_digest(weight)
    always = {*head_names(base), *persistent_buffers(base)}
    for name in tensors.keys() - found.indices.keys():
        old = tensors[name].detach().cpu()
        new = named.get(name, old).to(old.dtype)
        if name in always:
            found.whole[name] = new.clone()
        elif name in rest:
            between.compare(name, old, new, found)
    left = [name for name in body_names(base, ()) if name not in found.whole]
    return SparseDiff(**{**found._asdict(), "shapes": {name: tuple(tensors[name].shape) for name in left}})


def _info(adapter: Adapter, base: nn.Module) -> DiffInfo:
    """What `to_peft` has noted of the diff, or else what the adapter and the base say."""
    seen, name = seen_in(base), base_named_by(base)
    told = adapter.info or DiffInfo(adapter.base or DiffInfo.base_model, method=adapter.method, **facts_of(base) | seen)
    digest = told.base_digest if told.dtype == seen["dtype"] else ""
    name = told.base_model if name == DiffInfo.base_model else name
    return replace(told, **{**seen, "base_model": name, "base_digest": digest})


def _check_sparse(full: SparseDiff, adapter: Adapter, base: nn.Module) -> None:
    """Raise a ValueError where a diff of all changes would be no small one."""
    dense = [name for name in body_names(base, head_names(base)) if name in full.whole and full.whole[name].dim() > 1]
    named = adapter.named()
    if dense := [name for name in dense if name not in named]:
        raise ValueError(f"{adapter.method} changes all of {dense[0]}: say which share of the weights to keep, "
                         "`density` 0.005 for instance, or the `threshold` that a change must exceed")  # fmt: skip


def _error(full: SparseDiff, kept: SparseDiff, method: str, base: nn.Module) -> FromPeft:
    tensors, cut, norms = current_tensors(base), 0.0, 0.0
    worst, worst_name = 0.0, ""
    for name in full.indices.keys() | (full.whole.keys() - kept.whole.keys()):
        moved = tensors[name].detach().cpu().flatten().double()
        if name in full.whole:
            moved = full.whole[name].flatten().double() - moved
        else:
            at = full.positions(name)
            moved = torch.zeros_like(moved).index_copy_(0, at, full.values[name].double() - moved[at])
        norm = float(moved.square().sum())
        left = float(moved.index_fill_(0, kept.positions(name), 0.0).square().sum())
        cut, norms = cut + left, norms + norm
        if norm and sqrt(left / norm) > worst:
            worst, worst_name = sqrt(left / norm), name
    return FromPeft(kept, method, sqrt(cut / norms) if norms else 0.0, worst, worst_name)
