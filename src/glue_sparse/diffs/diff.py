"""SparseDiff, what a run produces: the active entries of each tensor, whole new tensors, and where they belong."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self, Unpack

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from glue_sparse.core import tensor_files
from glue_sparse.core.active import ActiveEntries, active_tensors
from glue_sparse.core.chosen import Chosen
from glue_sparse.core.masks import Masks, narrow
from glue_sparse.core.options import Precision
from glue_sparse.core.parametrization import (
    current_tensors,
    frozen_tensors,
    held_tensors,
    is_attached,
    original,
    persistent_buffers,
    read_entries,
    wholly_active,
)
from glue_sparse.diffs import applying, between, card, compact, diff_file, frozen, hub, patches, restoring
from glue_sparse.diffs.bases import public_name
from glue_sparse.diffs.card import Contents
from glue_sparse.diffs.identity import FILE_NAME, DiffInfo, seen_in

_STACK = "_glue_sparse_applied"


@dataclass(frozen=True)
class SparseDiff:
    """New values of a model's active entries; everything else is the base model.

    Attributes:
        indices: parameter name -> [k] sorted flat positions, int32 where they fit.
        values: parameter name -> [k] float32 values there; adding differences to a base would not be bit-exact.
        whole: tensors stored whole: the head, even if frozen, other unmasked parameters that trained, saved buffers.
        shapes: parameter name -> shape of the full tensor; of tensors without a stored entry too.
        digests: parameter name -> SHA-256 of the base tensor the values belong to.
        info: model, task, method.
    """

    indices: dict[str, Tensor]
    values: dict[str, Tensor]
    whole: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    digests: dict[str, str]
    info: DiffInfo = field(default_factory=DiffInfo)

    @classmethod
    def from_model(cls, model: nn.Module, info: DiffInfo | None = None, head: Sequence[str] | None = None) -> Self:
        """Collect the active entries of an attached model, and frozen ones that once were (on the CPU, copied).

        Args:
            head: names of tensors that the base does not have, stored even if frozen; by default see `head_names`.
        Raises:
            ValueError: tensors hold something else, such as gates: let the method finish first.
        """
        if any(not isinstance(held, ActiveEntries) for _, held in held_tensors(model)):
            raise ValueError("this model holds gates, which have no diff before the training of them ends")
        indices, values, shapes, digests, inactive = {}, {}, {}, {}, "frozen"
        for name, entries in active_tensors(model):
            inactive, weight = entries.inactive, original(model, name)
            shapes[name] = tuple(weight.shape)
            found, now = entries.places, entries.values.detach().float()
            if entries.explored is not None and inactive == "frozen":  # what has trained before keeps its last value
                found = entries.explored.flatten().nonzero().squeeze(1)
                now = read_entries(entries.current(weight), found).float()
            if not len(found) and inactive == "frozen":
                continue
            indices[name] = narrow(found, weight.numel()).to("cpu", copy=True)
            values[name] = now.to("cpu", copy=True)
            digests[name] = entries.base_digest
        kept = {**wholly_active(model), **frozen.frozen_head(model, head), **persistent_buffers(model)}
        whole = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in kept.items()}
        if inactive == "frozen":  # a mask taken from this diff keeps them as they are, too
            shapes |= {name: tuple(p.shape) for name, p in frozen_tensors(model).items() if name not in whole}
        facts = {"inactive": inactive, **seen_in(model)}
        return cls(indices, values, whole, shapes, digests, replace(info or DiffInfo(), **facts))

    @classmethod
    def between(
        cls, base: dict[str, Tensor] | str | Path, model: nn.Module | str | Path, head: tuple[str, ...] = (),
        info: DiffInfo | None = None,
    ) -> "SparseDiff":  # fmt: skip
        """What differs, bit for bit, between a base and a model trained from it, however that was done.

        A tensor of which more than half differs is stored whole, since indices would cost more than they save.

        Args:
            base: what `current_tensors` gave for the base, copied to the CPU; or a model folder.
            model: plain or attached; or a model folder, which is then read tensor by tensor.
            head: names to store whole in any case; tensors that the folder of the base lacks are so.
        Raises:
            ValueError: folders that are not of one model, see `between.folders`.
        """
        if isinstance(base, dict) and isinstance(model, nn.Module):
            told = replace(info or DiffInfo(), inactive="frozen", **seen_in(model))
            return cls(*between.models(base, model, head), told)
        if isinstance(base, dict) or isinstance(model, nn.Module):
            raise ValueError("give two folders, or the base's tensors and a model")
        found, told = between.folders(Path(base), Path(model), head)
        return cls(*found, info or told)

    @property
    def parts(self) -> diff_file.Parts:
        """All tensors, as a file holds them."""
        return {"indices": self.indices, "values": self.values, "whole": self.whole}

    def digest(self) -> str:
        """SHA-256 of all that is stored but the facts: equal digests mean equal diffs."""
        return diff_file.digest(self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in its file, which has the positions as gaps; without the header."""
        return compact.num_bytes(self.indices, self.values, self.whole)

    @property
    def num_entries(self) -> int:
        """Stored entries: active ones and those of whole tensors."""
        return sum(t.numel() for part in (self.values, self.whole) for t in part.values())

    @property
    def num_active(self) -> int:
        """Active entries of masked tensors."""
        return sum(t.numel() for t in self.values.values())

    @property
    def contents(self) -> Contents:
        """What the model card says of it."""
        masked = sum(torch.Size(shape).numel() for shape in self.shapes.values())
        return Contents(self.info, self.num_active, masked, self.num_entries - self.num_active, self.nbytes)

    @property
    def sparsity(self) -> float:
        """Share of the masked tensors that is zero; 0 where inactive entries keep their value."""
        entries = self.contents.masked
        return 1 - self.num_active / entries if self.info.inactive == "zero" and entries else 0.0

    def own_masks(self) -> Masks:
        """Masks of the masked tensors alone, without a model at hand."""
        masks = Chosen()
        for name, shape in self.shapes.items():
            masks.hold(name, self.positions(name), torch.Size(shape))
        return masks

    def masks(self, model: nn.Module) -> Masks:
        """Masks for `attach` that make exactly the stored entries of `model` active; ValueError where none fits."""
        masks, parameters = Chosen(), dict(model.named_parameters())
        for name, shape in self.shapes.items():
            if name not in parameters or tuple(parameters[name].shape) != shape:
                raise ValueError(f"{name} {shape} of this diff is not in the model: it is of {self.info.base_model}")
        frozen.check(self.whole, model)
        for name, parameter in frozen.to_mask(parameters, self.shapes, self.whole, self.info.inactive).items():
            masks.hold(name, self.positions(name), parameter.shape)
        return masks

    def check(self, model: nn.Module, *, fingerprint: bool = True) -> None:
        """Raise a ValueError unless `model` is the base this diff was made from, both finite; changes nothing."""
        diff_file.check_finite(self.parts)
        restoring.check_base(self, model, fingerprint)

    def restore(self, model: nn.Module, masks: Masks | None = None, block_size: int = 1) -> None:
        """Continue training from this diff: make its entries active in `model` and give them the stored values.

        Args:
            masks: where they moved, the entries active now; the other stored ones only get their values. An attached
                model is moved to them.
            block_size: side of the tiles that they form.
        Raises:
            ValueError: wrong base, or a model that is attached with other active entries; nothing is changed then.
        """
        restoring.check(self, model, masks)
        restoring.put(self, model, masks, block_size)

    def positions(self, name: str) -> Tensor:
        """[k] int64 flat positions of a tensor's stored entries; none where nothing is stored."""
        return self.indices[name].long() if name in self.indices else torch.zeros(0, dtype=torch.long)

    def at_base(self, model: nn.Module) -> "SparseDiff":
        """The same entries with the values that `model`, its base, has there; the head stays that of the diff."""
        return replace(self, values=compact.values_of(current_tensors(model), self.indices))

    def apply(self, model: nn.Module, *, check: bool = True) -> None:
        """Put the diff into `model` in place and remember what it replaced; `remove` restores it bit for bit.

        Args:
            check: compare the base's fingerprint first, which reads every masked tensor; skip it on a known base.
        Raises:
            ValueError: wrong base, wrong shape or an attached model; nothing is changed then.
        """
        tensors = self._checked(model, check)
        replaced = applying.replaced(self, tensors)
        applying.put(self, tensors)
        model.__dict__.setdefault(_STACK, []).append((self, replaced))

    def merge_into(self, model: nn.Module, *, check: bool = True) -> None:
        """Put the diff into `model` for good, without the memory that `apply` needs to undo it; raises as `apply`."""
        applying.put(self, self._checked(model, check))

    def _checked(self, model: nn.Module, fingerprint: bool) -> dict[str, Tensor]:
        if is_attached(model):
            raise ValueError("the model has active entries of its own; call detach(model) before applying a diff")
        self.check(model, fingerprint=fingerprint)
        return current_tensors(model)

    def remove(self, model: nn.Module) -> None:
        """Undo the last `apply` on this model; every byte is as before.

        Raises:
            ValueError: this diff is not the one applied last.
        """
        stack = model.__dict__.get(_STACK, [])
        if not stack or stack[-1][0] is not self:
            raise ValueError("this diff is not the one applied last; remove the others first, latest first")
        _, replaced = stack.pop()
        applying.put_back(self, current_tensors(model), replaced)

    @contextmanager
    def applied(self, model: nn.Module, *, check: bool = True) -> Iterator[nn.Module]:
        """The model with this diff inside the block, the untouched base after it."""
        self.apply(model, check=check)
        try:
            yield model
        finally:
            self.remove(model)

    def save_file(self, folder: str | Path, values: Precision = "float32", base: nn.Module | None = None) -> Path:
        """Write `sparse_diff.safetensors` into a folder, whole or not at all, finite values only; gives its path.

        Args:
            values: `float32` loses nothing; `bfloat16` rounds each value (by 0.2 % at most), `differences` how much it
                differs from the base (by 0.2 % of that), and whoever reads such a file needs the base.
            base: for differences, the model without this diff.
        """
        path, before = Path(folder) / FILE_NAME, None
        if values == "differences":
            if base is None:
                raise ValueError("`values` differences need `base`, the model that they are differences to")
            self.check(base)
            before = current_tensors(base)
        diff_file.write(path, self.parts, asdict(self.info), self.shapes, self.digests, values, before)
        return path

    def save_pretrained(
        self, folder: str | Path, values: Precision = "float32", base: nn.Module | None = None
    ) -> Path:
        """The same with a model card beside it, README.md, unless one of your own lies there."""
        path = self.save_file(folder, values, base)
        told = replace(self.contents, holds=values, nbytes=compact.num_bytes(*self.parts.values(), precision=values))
        card.write(card.of_diff(told, card.place_of(path.parent)), path.parent)
        return path

    @classmethod
    def from_pretrained(
        cls, source: str | Path, revision: str | None = None, base: nn.Module | Mapping[str, Tensor] | None = None
    ) -> "SparseDiff":
        """Read a diff from a file, a folder that holds one, or a hub repository.

        Args:
            base: its model, or the model's tensors by name, which a file with differences needs; `read_diff` loads it.
        Raises:
            ValueError: not found, truncated, not a diff of this library, or differences to another base.
        """
        before = current_tensors(base) if isinstance(base, nn.Module) else base
        return cls(**diff_file.read(tensor_files.locate(source, FILE_NAME, revision), before)[0])

    def checkpoint_patches(self, model: PreTrainedModel | None = None) -> patches.Patches:
        """For a serving engine: absolute values at flat positions of the checkpoint's tensors, or dense: whole tensors.

        Args:
            model: of the diff's class, on the meta device too; needed where its checkpoint differs from it in form.
        Raises:
            ValueError: a value is not finite in the checkpoint's type, or the form cannot be followed.
        """
        return patches.of(self, model)

    def push_to_hub(self, repo_id: str, *, readme: str = "", **options: Unpack[hub.Options]) -> str:
        """Upload the diff with a model card; a base that is a folder is named there by the last part of its path alone.

        Args:
            repo_id: `owner/name`; made where it is missing.
            readme: text of the card, such as that of a run, which has its metrics; by default a new one.
            options: `private`, `token`, `revision` (a branch) and `message`; by default those of the hub.
        Returns:
            The commit's address.
        Raises:
            ValueError: no such name, no right or no network; the sentence says what to do.
        """
        told = replace(self, info=replace(self.info, base_model=public_name(self.info.base_model)))
        return hub.push(told.save_file, repo_id, readme or card.of_diff(told.contents, repo_id), **options)
