"""What differs between a base and a model trained from it, in memory or in two folders read tensor by tensor."""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from glue_sparse.core.digests import bits, tensor_digest
from glue_sparse.core.masks import narrow
from glue_sparse.core.parametrization import current_tensors, persistent_buffers, read_entries
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.diffs.stored_names import Layout, layout_by
from glue_sparse.writing.fields import json_object, text_of

INDEX = "model.safetensors.index.json"
_OUTPUT = "lm_head.weight"
"""Where it is tied, one program saves it and another leaves it out, since it is another tensor's."""


class Found(NamedTuple):
    """The parts of a diff, see `SparseDiff`."""

    indices: dict[str, Tensor]
    values: dict[str, Tensor]
    whole: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    digests: dict[str, str]


def models(base: dict[str, Tensor], model: nn.Module, head: tuple[str, ...]) -> Found:
    """See `SparseDiff.between`."""
    found = Found({}, {}, {}, {}, {})
    tensors, always = current_tensors(model), {*head, *persistent_buffers(model)}
    for name, old in base.items():
        new = tensors[name].detach().cpu().contiguous()
        if name in always:
            found.whole[name] = new.clone()
        else:
            compare(name, old, new, found)
    return found


def folders(base: Path, tuned: Path, head: tuple[str, ...] = ()) -> tuple[Found, DiffInfo]:
    """See `SparseDiff.between`: in memory are two tensors and what has been found so far.

    Raises:
        ValueError: a folder holds no weights in safetensors format, or the two are not of one model: a tensor is in
            the base alone, or has another shape or type.
    """
    config = _config(tuned)
    layout = layout_by(config)
    olds, news = StoredTensors(base, layout), StoredTensors(tuned, layout)
    tied = {_OUTPUT} if config.get("tie_word_embeddings", True) else set[str]()
    found = Found({}, {}, {}, {}, {})
    if lost := sorted(olds.names - news.names - tied):
        raise ValueError(f"{tuned} lacks {lost[0]}, which {base} has: they are not of one model")
    for name in sorted(news.names):
        new = news[name]
        if name in head or name not in olds.names:
            if name not in tied:
                found.whole[name] = new
            continue
        old = olds[name]
        if old.shape != new.shape or old.dtype != new.dtype:
            told = [f"{str(one.dtype).removeprefix('torch.')} {list(one.shape)}" for one in (old, new)]
            raise ValueError(f"{name} is {told[0]} in the base and {told[1]} in the other: save both in one type")
        compare(name, old, new, found)
    return found, _info(base, config, news)


def compare(name: str, old: Tensor, new: Tensor, found: Found) -> None:
    """Note what differs in one tensor: in its entries, or whole where more than half of them differ."""
    changed = bits(new).ne(bits(old)).flatten().nonzero().squeeze(1)
    if len(changed) > new.numel() // 2 or not new.is_floating_point():
        found.whole[name] = new.clone()
        return
    found.shapes[name] = tuple(new.shape)
    if len(changed):
        found.indices[name] = narrow(changed, new.numel())
        found.values[name] = read_entries(new, changed).float()
        found.digests[name] = tensor_digest(old)


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a model folder by the names that the model has for them, read from its files when asked for.

    Args:
        layout: of a model that is stored in another form; by default as its config.json says.
    Raises:
        ValueError: there are no weights, or not all that a tensor of the model is made of.
    """

    def __init__(self, folder: Path, layout: Layout | None = None):
        layout = layout or layout_by(_config(folder))
        self._folder, self._layout = folder, layout
        self._files = dict(_names(folder))
        if not self._files:
            raise ValueError(f"{folder} holds no weights in safetensors format: give the folder of a saved model")
        self.names, self._group_of = {*self._files}, dict[str, tuple[str, ...]]()
        for group, stored in layout.groups.items() if layout else ():
            if lacking := sorted(stored - self._files.keys()):
                if len(lacking) == len(stored):  # tied to another, or left out as a whole
                    continue
                raise ValueError(f"{folder} lacks {lacking[0]}, and has {len(stored) - len(lacking)} of its kind")
            self.names = (self.names - stored) | {*group}
            self._group_of |= dict.fromkeys(group, group)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        if name not in self._group_of:
            return self._read(name)
        assert self._layout is not None
        group, flat = self._group_of[name], torch.empty(0)
        sizes = [prod(self._layout.shapes[one]) for one in group]
        for stored, shape, positions in self._layout.places(group):
            part = self._read(stored)
            if part.shape != shape:
                raise ValueError(f"{stored} of {self._folder} is {[*part.shape]}, and by config.json {[*shape]}")
            if not len(flat):
                flat = torch.empty(sum(sizes), dtype=part.dtype)
            flat[positions.long()] = part.reshape(-1)
        return flat.split(sizes)[group.index(name)].view(self._layout.shapes[name])

    def _read(self, name: str) -> Tensor:
        path = self._files[name]
        try:
            with safe_open(path, "pt") as file:
                return file.get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error


def _names(folder: Path) -> Iterator[tuple[str, Path]]:
    index = folder / INDEX
    files = [folder / "model.safetensors"]
    if index.exists():
        listed: Any = json_object(text_of(index), str(index)).get("weight_map")
        if not isinstance(listed, dict):
            raise ValueError(f"{index} has no `weight_map`")
        files = sorted({folder / Path(str(name)).name for name in listed.values()})
    for path in files:
        if not path.is_file():
            continue
        try:
            with safe_open(path, "pt") as file:
                yield from ((name, path) for name in file.keys())  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return json_object(text_of(path), str(path)) if path.is_file() else {}


def _info(base: Path, config: dict[str, Any], news: StoredTensors) -> DiffInfo:
    dtype = str(next((tensor.dtype for tensor in news.values() if tensor.is_floating_point()), torch.float32))
    names = config.get("architectures") or [""]
    return DiffInfo(str(base), str(names[0]), dtype=dtype.removeprefix("torch."), method="between")
