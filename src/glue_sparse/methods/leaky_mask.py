"""A mask that leaks, as in the FISH authors' CIFAR-10 code: gradients are masked, and nothing else is."""

from pathlib import Path

import torch
from torch import nn

from glue_sparse.core.active import without_frozen
from glue_sparse.core.mask_file import load, save
from glue_sparse.core.masks import Masks
from glue_sparse.core.stored import check_like
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.methods.base import Batches, Combine, Moment, SparseMethod, alone
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.methods.refresh import Refresh

FILE_NAME = "legacy_masks.safetensors"


class LeakyMask(SparseMethod):
    """Weight decay shrinks the entries that should stay, so everything changes and nothing is saved. For comparison.

    Args:
        chosen: chooses the mask, and when to choose it anew.
    """

    refuses_merging = "workers that merge have `refresh_every` for new masks, and no `legacy_decay`"

    def __init__(self, chosen: FixedMask):
        self.chosen, self.needs_data, self.moves = chosen, chosen.needs_data, chosen.moves
        self._masks: Masks = {}
        self._refresh: Refresh | None = None

    def prepare(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone
    ) -> Masks:
        """See `SparseMethod.prepare`."""
        return self.chosen.prepare(model, head, batches, combine)

    def attach(self, model: nn.Module, masks: Masks) -> None:
        """Mask gradients as they come, before they are clipped, and nothing else."""
        self._refresh = self._refresh or self.chosen.refreshed(model)
        masks = without_frozen(model, masks)
        self._masks = masks
        for name in masks:
            model.get_parameter(name).register_hook(
                lambda gradient, name=name: gradient * self._masks[name].to(gradient.device)
            )

    def before_step(self, model: nn.Module, moment: Moment) -> None:
        """Choose anew where it is time; see `SparseMethod.before_step`."""
        if self._refresh:
            self._masks = self._refresh.masks(model, moment) or self._masks

    def save(self, model: nn.Module, info: DiffInfo, folder: Path) -> None:
        """The model, all of which has trained, and the mask."""
        super().save(model, info, folder)
        save(self._masks, folder / FILE_NAME)

    def restore(self, model: nn.Module, head: tuple[str, ...], folder: Path) -> None:
        """See `SparseMethod.restore`."""
        masks, _ = load(folder / FILE_NAME)
        for name, mask in without_frozen(model, masks).items():
            if name not in dict(model.named_parameters()):
                raise ValueError(f"{folder / FILE_NAME} names {name}, which the model does not have")
            check_like(name, mask, model.get_parameter(name).shape, torch.bool)
        self._refresh = self._refresh or self.chosen.refreshed(model)  # while the model is as at the start
        super().restore(model, head, folder)
        self.attach(model, masks)
