"""Efficient checkpoints: each file holds what changed since the previous one, so base + files = the model, bit for bit.

Sung et al. (2021, table 4) train with a mask that changes now and then, so that every checkpoint is a small delta.
"""

import re
import shutil
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.parametrization import current_tensors, is_attached, read_entries, write_entries
from glue_sparse.diffs import diff_file
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo, Link

FOLDER = "deltas"
"""In a run's folder."""
_NAME = re.compile(r"step-(\d{8,})\.safetensors")


class DeltaChain:
    """The deltas of one training, and a CPU copy of the model as it was at the last of them.

    Args:
        model: plain, before anything of it trains or is zeroed: the base.
        folder: the run's; the files go to `deltas` in it.
        head: names of parameters to store whole in every delta, since a new head is not in the base on disk.
        info: facts to store with each delta.
    """

    def __init__(self, model: nn.Module, folder: Path, head: tuple[str, ...] = (), info: DiffInfo | None = None):
        if is_attached(model):
            raise ValueError("deltas start from a plain model: begin them before active entries are attached")
        self.folder, self.head, self.info = folder, head, info
        self.state = _copies(model)
        self.links: dict[int, str] = {}
        """Step of each delta -> digest of the whole model there."""

    @property
    def dense_bytes(self) -> int:
        """What a checkpoint with all tensors of the model takes."""
        return sum(tensor.nbytes for tensor in self.state.values())

    def begin(self) -> None:
        """Start at the base; deltas of an earlier run are deleted."""
        self._check_at_base()
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
        (self.folder / FOLDER).mkdir(parents=True)

    def append(self, model: nn.Module, step: int) -> int:
        """Write what changed since the last delta, whole or not at all; returns the file's bytes."""
        last = max(self.links, default=None)
        assert last is None or step > last
        diff = SparseDiff.between(self.state, model, self.head, self.info)
        tensors = current_tensors(model)
        # in the tensor's own type: float32 would lose bits of a float64 tensor, and those of a bfloat16 NaN
        values = {n: read_entries(tensors[n], i.long().to(tensors[n].device)).cpu() for n, i in diff.indices.items()}
        diff = replace(diff, values=values)
        previous = _built_on(self.state, diff) if last is None else self.links[last]
        digest = state_digest(tensors)
        link = Link(step, last, previous, digest)
        path = _path(self.folder, step)
        diff_file.write(path, diff.parts, {**asdict(diff.info), **asdict(link)}, diff.shapes, diff.digests)
        _write(self.state, diff)
        self.links[step] = digest
        return path.stat().st_size

    def resume(self, model: nn.Module, step: int, *, due: bool = True) -> None:
        """Go on from `step`, at which `model` is; later deltas are deleted.

        Args:
            due: whether the chain is to have a delta of `step`: it is written where it is missing, or else deleted.
        Raises:
            ValueError: no folder of deltas, a broken chain, or another model at `step`; nothing is deleted then.
        """
        self._check_at_base()
        if not (self.folder / FOLDER).is_dir():
            raise ValueError(f"{self.folder / FOLDER} is missing: a run without deltas cannot go on with them")
        kept = [s for s in steps(self.folder) if s < step or (s == step and due)]
        self.links = _replay(self.state, self.folder, kept)
        if step in self.links and self.links[step] != state_digest(current_tensors(model)):
            raise ValueError(f"{_path(self.folder, step)} is of another run: the model at its step is not this one")
        for other in reversed(steps(self.folder)):  # the last first, so that what a crash leaves is a chain
            if other not in self.links:
                _path(self.folder, other).unlink()
        if due and step not in self.links:  # killed after the checkpoint and before its delta
            self.append(model, step)

    def _check_at_base(self) -> None:
        if self.links:
            raise ValueError(f"the deltas in {self.folder} have begun: make new ones for another training")


def steps(folder: str | Path) -> list[int]:
    """Steps of the deltas in a run's folder, in order."""
    names = [_NAME.fullmatch(path.name) for path in Path(folder, FOLDER).glob("step-*.safetensors")]
    return sorted(int(name[1]) for name in names if name)


def sizes(folder: str | Path) -> dict[int, int]:
    """Step -> bytes of its delta's file."""
    return {step: _path(folder, step).stat().st_size for step in steps(folder)}


def delta(folder: str | Path, step: int | None = None) -> SparseDiff:
    """What changed between a delta and the one before it; without a step, the last.

    Raises:
        ValueError: no such step, or a damaged file.
    """
    return SparseDiff.from_pretrained(_path(folder, known_steps(folder, step)[-1]))


def known_steps(folder: str | Path, step: int | None = None) -> list[int]:
    """Steps of the deltas that lead to `step`, by default to the last.

    Raises:
        ValueError: there are none, or none of this step.
    """
    known = steps(folder)
    if not known:
        raise ValueError(f"{Path(folder) / FOLDER} holds no deltas")
    if step is not None and step not in known:
        nearest = sorted(sorted(known, key=lambda other: abs(other - step))[:2])
        raise ValueError(f"{folder} holds no delta of step {step}; nearest: {', '.join(map(str, nearest))}")
    return known if step is None else [s for s in known if s <= step]


def restore(model: nn.Module, folder: str | Path, step: int | None = None) -> None:
    """Make the base model the one of `step`, by default of the last delta, bit for bit.

    Raises:
        ValueError: unknown step, another base, a missing or damaged file, attached; the model is unchanged then.
    """
    if is_attached(model):
        raise ValueError("the model has active entries of its own; call detach(model) before restoring a step")
    chosen, state = known_steps(folder, step), _copies(model)
    _replay(state, Path(folder), chosen)
    for name, tensor in current_tensors(model).items():
        tensor.data.copy_(state[name])


def changed_entries(folder: str | Path) -> int:
    """How many entries any of the deltas stores; all of a tensor that one of them stores whole."""
    whole: dict[str, int] = {}
    places: dict[str, Tensor] = {}
    for step in steps(folder):
        found = delta(folder, step)
        whole.update({name: tensor.numel() for name, tensor in found.whole.items()})
        for name, indices in found.indices.items():
            places[name] = torch.cat([places.get(name, indices[:0]), indices]).unique()
    return sum(whole.values()) + sum(len(indices) for name, indices in places.items() if name not in whole)


def state_digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bits of tensors."""
    lines = [f"{name} {tensor_digest(tensors[name])}\n" for name in sorted(tensors)]
    return sha256("".join(lines).encode()).hexdigest()


def _built_on(state: dict[str, Tensor], diff: SparseDiff) -> str:
    """Digest of what a delta needs of the base: all but the tensors it stores whole, such as a head that was new."""
    return state_digest({name: state[name] for name in diff.shapes})


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in current_tensors(model).items()}


def _path(folder: str | Path, step: int) -> Path:
    return Path(folder) / FOLDER / f"step-{step:08d}.safetensors"


def _replay(state: dict[str, Tensor], folder: Path, chosen: list[int]) -> dict[int, str]:
    """Bring the base's tensors to the last of the chosen steps; gives the digest of each."""
    links: dict[int, str] = {}
    for step in chosen:
        path, last = _path(folder, step), max(links, default=None)
        diff, link = _read(path)
        if link.step != step:
            raise ValueError(f"{path} is the delta of step {link.step} under another name")
        if link.follows is not None and link.follows not in links:
            raise ValueError(f"{path} follows a delta of step {link.follows}, which is missing")
        if link.follows != last or (last is not None and link.previous != links[last]):
            raise ValueError(f"{path} does not continue the delta before it: they are of different runs")
        _check_fits(state, diff)
        if last is None and _built_on(state, diff) != link.previous:
            raise ValueError(
                f"this model is not the base of {folder / FOLDER}: load exactly {diff.info.base_model} (dtype "
                f"{diff.info.dtype}), without a task's weights in it"
            )
        _write(state, diff)
        links[step] = link.digest
    # once, at the end: the links are checked by their headers, and hashing a model takes longer than a delta does
    if links and state_digest(state) != links[chosen[-1]]:
        raise ValueError(f"{folder / FOLDER} does not give the model of step {chosen[-1]}: a file in it is damaged")
    return links


def _read(path: Path) -> tuple[SparseDiff, Link]:
    found, link = diff_file.read(path)
    if link is None:
        raise ValueError(f"{path} is a diff but no delta: its header says no step")
    return SparseDiff(**found), link


def _check_fits(state: dict[str, Tensor], diff: SparseDiff) -> None:
    for name, shape in {**diff.shapes, **{n: tuple(t.shape) for n, t in diff.whole.items()}}.items():
        found = state.get(name)
        if found is None or tuple(found.shape) != shape or found.dtype != diff.whole.get(name, found).dtype:
            raise ValueError(f"{name} {shape} of these deltas is not in the model: they are of {diff.info.base_model}")


def _write(state: dict[str, Tensor], diff: SparseDiff) -> None:
    for name, indices in diff.indices.items():
        write_entries(state[name], indices.long(), diff.values[name])
    for name, tensor in diff.whole.items():
        state[name].copy_(tensor)
