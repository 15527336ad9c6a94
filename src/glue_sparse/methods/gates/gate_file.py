"""The file of gates that are being learnt: diffs, logits and head, for a run that goes on."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from glue_sparse.core import tensor_files
from glue_sparse.core.stored import check_all_like, check_like
from glue_sparse.diffs.diff_file import check_finite
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.methods.gates import noise
from glue_sparse.writing.fields import typed
from glue_sparse.writing.seals import Facts, reading

logger = logging.getLogger(__name__)

FILE_NAME = "gates.safetensors"
FORMAT = "glue_sparse gates"


@dataclass(frozen=True, kw_only=True)
class GateFacts(Facts):
    """What the header says."""

    digests: dict[str, str]
    step: int
    as_released: bool
    noise: int = 1
    """Version of the numbers that the gates saw; older files name none."""


@dataclass(frozen=True)
class GateFile:
    """What a checkpoint of diff_gates holds.

    Attributes:
        tensors: `diff/NAME`, `alpha/NAME`, `group/NAME` and, for the head and buffers, `whole/NAME`.
        digests: parameter name -> SHA-256 of the base tensor.
        step: number of the optimizer step whose sample the gates show.
        as_released: whether that sample, and not deterministic gates, is what counts.
        noise: version of the random numbers of that sample, see `noise.VERSION`.
    """

    tensors: dict[str, Tensor]
    digests: dict[str, str]
    step: int
    as_released: bool
    noise: int = noise.VERSION

    def write(self, folder: Path) -> None:
        """Write `gates.safetensors`, whole or not at all."""
        tensors = {key: t.detach().to("cpu", copy=True).contiguous() for key, t in self.tensors.items()}
        header = {"digests": self.digests, "step": self.step, "as_released": self.as_released, "noise": self.noise}
        tensor_files.write(folder / FILE_NAME, FORMAT, tensors, header)

    @classmethod
    def read(cls, folder: Path) -> "GateFile":
        """Read what `write` wrote; ValueError when it is missing or damaged."""
        path = folder / FILE_NAME
        tensors, stored = tensor_files.read(path, FORMAT)
        with reading(path):
            facts = typed(GateFacts, stored, "its header")
            if facts.step < 0:
                raise ValueError(f"a step {facts.step} does not exist")
            if not 1 <= facts.noise <= noise.VERSION:
                raise ValueError(f"gates of noise {facts.noise} are of a newer version: update glue_sparse")
        whole = {key: tensor for key, tensor in tensors.items() if key.startswith("whole/")}
        check_finite({"values": {key: t for key, t in tensors.items() if key not in whole}, "whole": whole})
        return cls(tensors, facts.digests, facts.step, facts.as_released, facts.noise)

    def check_fits(self, wanted: "GateFile", folder: Path) -> None:
        """Raise a ValueError unless this file has just the tensors and the base of a model's gates; say if it is old.

        Args:
            wanted: of the model.
        """
        if self.digests != wanted.digests:
            raise ValueError(f"{folder} was trained from another base model, or with other layers fixed")
        if self.tensors.keys() != wanted.tensors.keys():
            raise ValueError(f"{folder} holds other gates than this run has")
        with reading(folder / FILE_NAME):
            check_all_like(self.tensors, wanted.tensors)
        if self.noise != wanted.noise:
            logger.warning("%s is of an older version, whose gates saw other random numbers: the run goes on, but not "
                           "as it would have there", folder)  # fmt: skip

    def diffs(self) -> dict[str, Tensor]:
        """Parameter name -> d, whatever its gates."""
        return {key.removeprefix("diff/"): t for key, t in self.tensors.items() if key.startswith("diff/")}


def raw_values(source: Path, info: DiffInfo, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """w0 + d of a run `as_released`, from which the authors' third stage starts; nothing for other runs.

    Args:
        source: the run's folder, or its diff, of which `info` is.
    """
    folder = source if source.is_dir() else source.parent
    if info.method != "diff_gates" or not (folder / FILE_NAME).is_file():
        return {}
    gates = GateFile.read(folder)
    if not gates.as_released:
        return {}
    with reading(folder / FILE_NAME):
        for name, d in gates.diffs().items():
            if name not in base:
                raise ValueError(f"this model has no tensor {name}")
            check_like(name, d, base[name].shape, torch.float32)
    return {name: base[name].float() + d for name, d in gates.diffs().items()}
