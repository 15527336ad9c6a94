"""The file of gates that are being learnt: diffs, logits and head, for a run that goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from glue_sparse.core import tensor_files
from glue_sparse.diffs.identity import DiffInfo

FILE_NAME = "gates.safetensors"
FORMAT = "glue_sparse gates 1"


@dataclass(frozen=True)
class GateFile:
    """What a checkpoint of diff_gates holds.

    Attributes:
        tensors: `diff/NAME`, `alpha/NAME`, `group/NAME` and, for the head and buffers, `whole/NAME`.
        digests: parameter name -> SHA-256 of the base tensor.
        step: number of the optimizer step whose sample the gates show.
        as_released: whether that sample, and not deterministic gates, is what counts.
    """

    tensors: dict[str, Tensor]
    digests: dict[str, str]
    step: int
    as_released: bool

    def write(self, folder: Path) -> None:
        """Write `gates.safetensors`, whole or not at all."""
        tensors = {key: t.detach().to("cpu", copy=True).contiguous() for key, t in self.tensors.items()}
        header = {"digests": self.digests, "step": self.step, "as_released": self.as_released}
        tensor_files.write(folder / FILE_NAME, FORMAT, tensors, header)

    @classmethod
    def read(cls, folder: Path) -> "GateFile":
        """Read what `write` wrote; ValueError when it is missing or damaged."""
        tensors, header = tensor_files.read(folder / FILE_NAME, FORMAT)
        return cls(tensors, header["digests"], header["step"], header["as_released"])

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
    return {name: base[name].float() + d for name, d in gates.diffs().items()} if gates.as_released else {}
