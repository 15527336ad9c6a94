"""A diff as an adapter that peft loads: entries of linear layers, and whole modules."""

import copy
import re
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glue_sparse.core.digests import bits
from glue_sparse.core.parametrization import is_attached, persistent_buffers, read_entries
from glue_sparse.core.params import head_names
from glue_sparse.diffs import peft_files
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.peft_files import KINDS, PREFIX, TASKS, Adapter, Entries, Kind
from glue_sparse.writing.words import listed


@dataclass(frozen=True)
class ToPeft:
    """What an adapter was made of.

    Attributes:
        folder: where it lies.
        entries: stored entries of the diff that it holds as such.
        padded: entries without a change beside them, for peft wants the same number per width in all layers.
        whole: names of the modules that it holds whole.
        inexact: entries for which no change gives the very bits of the diff's value.
        largest: largest difference that this leaves.
        nbytes: of its tensors.
    """

    folder: Path
    entries: int
    padded: int
    whole: tuple[str, ...]
    inexact: int
    largest: float
    nbytes: int

    def __str__(self) -> str:
        """All of it in words."""
        modules = f"{listed(self.whole)} whole" if self.whole else "no module whole"
        exact = (f"{self.inexact:,} merged entries differ from the diff's, by {self.largest:.2g} at most"
                 if self.inexact else "merged, it gives the diff's values bit for bit")  # fmt: skip
        return (f"{self.entries:,} entries and {self.padded:,} without a change that fill up its layers; {modules}; "
                f"{self.nbytes:,} bytes of tensors; {exact}")  # fmt: skip


@dataclass
class _Parts:
    """Which modules of a model become what."""

    layers: dict[str, nn.Linear]
    whole: set[str]


def write(diff: SparseDiff, base: nn.Module, folder: Path, kind: str, dense: bool) -> ToPeft:
    """See `models.of_peft.to_peft`."""
    if kind not in KINDS:
        raise ValueError(f"`kind` is one of {listed(KINDS)}, not {kind}: no other method of peft trains single entries")
    if diff.info.inactive == "zero":
        raise ValueError("the other entries of this diff are zeros, which an adapter would have to store as changes: "
                         "`glue-sparse diff apply` writes the ordinary model")  # fmt: skip
    if is_attached(base):
        raise ValueError("the base has active entries of its own: give the plain model that the diff belongs to")
    diff.check(base)
    merged = copy.deepcopy(base)
    diff.merge_into(merged, check=False)
    parts = _parts(diff, base, kind, dense)
    sizes = {name: len(diff.positions(f"{name}.weight")) for name in parts.layers}
    told, form = _TOLD[kind](parts.layers, sizes), KINDS[kind]
    counts = {name: form.count(told[form.says], layer.weight.shape) for name, layer in parts.layers.items()}
    tensors, inexact, largest = _layers(diff, parts.layers, merged, counts, form)
    for name in sorted(parts.whole):
        state = merged.get_submodule(name).state_dict()
        tensors |= {f"{PREFIX}{name}.{key}": one.detach().cpu().clone() for key, one in state.items()}
    ours = {"info": asdict(diff.info), "entries": {f"{name}.weight": size for name, size in sizes.items()}}
    peft_files.write(Adapter(_config(diff, base, kind, parts) | told, tensors, ours), folder)
    entries, nbytes = sum(sizes.values()), sum(one.nbytes for one in tensors.values())
    return ToPeft(folder, entries, sum(counts.values()) - entries, tuple(sorted(parts.whole)), inexact, largest, nbytes)


def _parts(diff: SparseDiff, base: nn.Module, kind: str, dense: bool) -> _Parts:
    """Share a diff out over what an adapter can hold.

    Raises:
        ValueError: a tensor fits nowhere; the sentence names it and says what would have to be true.
    """
    modules, head = dict(base.named_modules()), head_names(base)
    holds = {name for name, found in diff.indices.items() if len(found)}
    parameters = {name for name, _ in base.named_parameters()}
    fits = {name for name in holds if name.endswith(".weight") and isinstance(modules[_owner(name)], nn.Linear)}
    if (others := sorted(holds - fits)) and not dense:
        raise ValueError(f"{others[0]} has active entries and is no weight of a linear layer, which is all that {kind} "
                         "holds: train with `tensors` that name such weights alone, or let `dense` modules be stored "
                         f"whole ({len(others)} such tensors)")  # fmt: skip
    rest = [*others, *(name for name in diff.whole if name in parameters)]
    tops = {name.partition(".")[0] if name in head else _owner(name) for name in rest}
    whole = {name for name in tops if not any(name.startswith(f"{other}.") for other in tops)}
    if "" in whole:
        raise ValueError(f"{next(name for name in rest if '.' not in name)} is in no module that peft could store")
    inside = {name for name in modules if any(f"{name}.".startswith(f"{one}.") for one in whole)}
    layers: Any = {name: modules[name] for name in sorted(map(_owner, fits)) if name not in inside}
    peft_files.check_untied({*layers, *inside}, base)
    for name, buffer in persistent_buffers(base).items():
        if _owner(name) not in inside and not torch.equal(diff.whole.get(name, buffer), buffer.cpu()):
            raise ValueError(f"{name} is a buffer that changed in training, which no adapter of peft holds")
    if not layers:
        raise ValueError(f"this diff has no entries in linear layers alone, so there is nothing for {kind} to hold: "
                         "`glue-sparse diff apply` writes the ordinary model")  # fmt: skip
    return _Parts(layers, whole)


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _rank(layers: dict[str, nn.Linear], sizes: dict[str, int]) -> dict[str, Any]:
    """What the configuration of a SHiRA adapter says of layers with at least so many entries."""
    widths = {name: sum(layer.weight.shape) for name, layer in layers.items()}
    r = max(ceil(sizes[name] / width) for name, width in widths.items())
    for name, layer in layers.items():
        if r * widths[name] > layer.weight.numel():
            fullest = max(sizes, key=lambda one: sizes[one] / widths[one])
            raise ValueError(f"shira has r * (inputs + outputs) entries in each layer, r = {r} for those of {fullest}, "
                             f"and {name} {[*layer.weight.shape]} has fewer than that: train with `distribution` "
                             "uniform or a smaller `density`, or use `kind` supertuning")  # fmt: skip
    return {"r": r, "mask_type": "random", "random_seed": None, "fan_in_fan_out": False, "init_weights": True}


def _sparsity(layers: dict[str, nn.Linear], sizes: dict[str, int]) -> dict[str, Any]:
    """The same of a Super-Tuning adapter: the largest sparsity that leaves enough of each layer."""
    count = KINDS["supertuning"].count
    sparsity = 1 - max(sizes[name] / layer.weight.numel() for name, layer in layers.items())
    while any(count(sparsity, layer.weight.shape) < max(sizes[name], 1) for name, layer in layers.items()):
        sparsity -= 2.0**-40
    return {"sparsity": max(sparsity, 0.0), "select_top": True, "r": None, "lora_alpha": None, "lora_dropout": 0.0,
            "init_weights": True, "save_precomputed_indices": True}  # fmt: skip


_TOLD = {"shira": _rank, "supertuning": _sparsity}
"""Kind -> what its configuration says so that all entries find a place."""


def _layers(
    diff: SparseDiff, layers: dict[str, nn.Linear], merged: nn.Module, counts: dict[str, int], kind: Kind
) -> tuple[dict[str, Tensor], int, float]:
    """The tensors of all layers, how many entries are not as in the diff, and by how much at most."""
    tensors, inexact, largest = {}, 0, 0.0
    for name, layer in layers.items():
        weight, positions = layer.weight.detach().cpu(), diff.positions(f"{name}.weight")
        old = read_entries(weight, positions)
        new = read_entries(merged.get_parameter(f"{name}.weight").detach().cpu(), positions)
        changes = _changes(old, new)
        off = (kind.added(old, changes).double() - new.double()).abs()
        inexact, largest = inexact + int((off > 0).sum()), max(largest, float(off.max()) if len(off) else 0.0)
        is_free = torch.ones(weight.numel(), dtype=torch.bool).index_fill_(0, positions, False)
        padding = is_free.nonzero().squeeze(1)[: counts[name] - len(positions)]
        entries = Entries(torch.cat([positions, padding]), torch.cat([changes, torch.full(padding.shape, -0.0)]))
        stored = kind.stored(entries, weight.shape)
        tensors |= {f"{PREFIX}{name}.{part}": one for part, one in stored.items()}
    return tensors, inexact, largest


def _changes(old: Tensor, new: Tensor) -> Tensor:
    """[k] float32 differences; -0.0 where nothing changes, which leaves -0.0 as it is too.

    A difference is rounded, so that its sum with `old` may miss `new` by the last bit; where `new` is much smaller than
    `old`, no float32 number is right.
    """
    return torch.where(bits(old) == bits(new), torch.full(old.shape, -0.0), new.float() - old.float())


def _config(diff: SparseDiff, base: nn.Module, kind: str, parts: _Parts) -> dict[str, Any]:
    name, cls = diff.info.base_model, type(base)
    tasks = (task for task, end in TASKS.items() if end and cls.__name__.endswith(end))
    task = next(tasks, None)
    told = {"base_model_class": cls.__name__, "parent_library": cls.__module__}
    names = list(parts.layers)
    also = [one for one, module in base.named_modules() if isinstance(module, nn.Linear) and one not in parts.layers
            and any(one.endswith(f".{name}") for name in names)]  # fmt: skip
    return {
        "peft_type": kind.upper(),
        "task_type": task,
        "auto_mapping": None if task else told,
        "base_model_name_or_path": name,
        "inference_mode": True,
        "target_modules": "|".join(map(re.escape, names)) if also else names,
        "modules_to_save": sorted(parts.whole) or None,
    }
