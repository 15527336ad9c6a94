"""Constants of GPUs, each with its source and how sure it is."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from glue_sparse.arguments.yaml_file import yaml_object
from glue_sparse.core.options import Dtype
from glue_sparse.writing.bounds import DENSITY, check
from glue_sparse.writing.fields import typed
from glue_sparse.writing.words import check_one_of

SHIPPED = Path(__file__).with_name("devices.yaml")


@dataclass(frozen=True)
class Constant:
    """A number with where it is from.

    Attributes:
        kind: a vendor's data sheet, a measurement of ours, an assumption, or what the command line gives.
    """

    value: float
    kind: Literal["data sheet", "measured here", "assumed", "given"]
    source: str


@dataclass(frozen=True)
class Device:
    """A GPU in its node.

    Attributes:
        bfloat16_flops, float32_flops: peak of dense products in that type, FLOP/s.
        memory_bytes: of one GPU.
        node_gpus: GPUs of one node.
        node_link: bytes/s that a GPU sends to others of its node, while it receives as many.
        network_link: bytes/s that a node sends to other nodes, for each of its GPUs.
        compute_share, link_share, memory_share: shares of the peak, of both bandwidths and of the memory that a run
            reaches, in (0, 1].
        call_seconds: what a collective takes beside its bytes, for each doubling of its ranks.

    Raises:
        ValueError: a constant that is not positive, or a share above 1.
    """

    title: str
    bfloat16_flops: Constant
    float32_flops: Constant
    memory_bytes: Constant
    node_gpus: Constant
    node_link: Constant
    network_link: Constant
    compute_share: Constant
    link_share: Constant
    memory_share: Constant
    call_seconds: Constant

    def __post_init__(self) -> None:
        for name, constant in self.constants().items():
            if name.endswith("_share"):
                check(name, constant.value, DENSITY)
            if constant.value < 0 or not constant.value and name != "call_seconds":
                raise ValueError(f"`{name}` must be above 0, got {constant.value}")

    def constants(self) -> dict[str, Constant]:
        """All constants by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "title"}

    def flops(self, dtype: Dtype) -> float:
        """FLOP/s that products in a type reach."""
        peak = self.bfloat16_flops if dtype == "bfloat16" else self.float32_flops
        return peak.value * self.compute_share.value

    def usable_bytes(self) -> float:
        """Bytes that tensors can fill."""
        return self.memory_bytes.value * self.memory_share.value

    def bandwidth(self, num_ranks: int) -> float:
        """Bytes/s that each rank sends in a collective of ring algorithms over `num_ranks` GPUs.

        Within a node it is NVLink's. Between nodes as many rings run as a node has GPUs, each through a port of its
        own, so that the slower of NVLink and all ports of a node together holds.
        """
        node = min(num_ranks, self.node_gpus.value)
        ports = node * self.network_link.value if num_ranks > node else self.node_link.value
        return min(self.node_link.value, ports) * self.link_share.value

    def given(self, **values: float | None) -> "Device":
        """The device with constants that a user gives; None leaves one as it is."""
        told = {name: Constant(value, "given", "on the command line")
                for name, value in values.items() if value is not None}  # fmt: skip
        return replace(self, **told)  # pyright: ignore[reportArgumentType]


def read(name: str) -> Device:
    """A device that comes with the package, or the one device of a YAML like `devices.yaml` whose path is given.

    Raises:
        ValueError: an unknown name, or a file that does not hold one device.
    """
    if name.endswith((".yaml", ".yml")):
        found = _of(Path(name))
        if len(found) != 1:
            raise ValueError(f"{name} holds {len(found)} devices: leave one")
        return next(iter(found.values()))
    shipped = _of(SHIPPED)
    check_one_of("device", name, shipped, f"there are {', '.join(shipped)}, and a YAML file of constants")
    return shipped[name]


def _of(path: Path) -> dict[str, Device]:
    return typed(dict[str, Device], yaml_object(path), path)
