"""Tensor files damaged at random, in their bytes or, written anew with a valid seal, in their facts and tensors.

PYTHONPATH=tests/helpers python -m pytest -m slow tests/training/test_damaged_files.py -s   # prints a table
"""

import copy
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from glue_sparse.core import tensor_files
from glue_sparse.core.active import active_tensors
from glue_sparse.core.digests import tensor_digest
from glue_sparse.methods.base import SparseMethod

LONGEST = 300
"""Characters of a sentence."""
WRONG: tuple[Any, ...] = (None, True, -1, 1.5, "x", [], [1], [-1, 5], [1 << 20, 1 << 20], {}, {"x": 1}, 10**300)
"""What a fact is replaced by, where it is of another type."""
HEADERS = ("null", "[]", "1", "{", "[" * 3000 + "]" * 3000, '{"format": 1}', '{"format": ["x"]}')


@dataclass
class Reader:
    """What reads a file: gives its meaning, or raises; where it changes a network, `network` is that."""

    path: Path
    read: Callable[["Reader"], str]
    make: Callable[[], nn.Module | None] = lambda: None
    deep: bool = True
    """Whether tensors under a valid seal are damaged too: not where any tensors are a file."""
    harmless: tuple[str, ...] = ()
    """Of CHANGES: those that make another good file of one."""
    network: Any = None
    before: dict[str, Any] = field(default_factory=dict)

    def renew(self) -> None:
        """Start from an untouched network."""
        self.network = self.make()
        self.before = copy.deepcopy(state_of(self.network))

    def is_unchanged(self) -> bool:
        """Whether the network is as it was, to the last bit."""
        now = state_of(self.network)
        return now.keys() == self.before.keys() and all(torch.equal(now[name], self.before[name]) for name in now)


def state_of(network: nn.Module | None) -> dict[str, Tensor]:
    return {} if network is None else network.state_dict()


def meaning(*tensors: Mapping[str, Any]) -> str:
    """A digest of tensors and facts by name."""
    sha = hashlib.sha256()
    for named in tensors:
        for name in sorted(named):
            one = named[name]
            if isinstance(one, Tensor):
                one = tensor_digest(one)
            sha.update(f"{name} {one}\n".encode())
    return sha.hexdigest()


def restored(method: SparseMethod, network: nn.Module, head: tuple[str, ...], folder: Path) -> str:
    """What a network and its method are after `restore`."""
    method.restore(network, head, folder)
    explored = {name: entries.explored for name, entries in active_tensors(network)}
    own = {**vars(method).get("_stored", {}), **vars(method).get("_counts", {}), **vars(method).get("_masks", {})}
    draw = vars(method).get("draw")
    return meaning(network.state_dict(), explored, own, {"draw": draw and draw.step})


def fuzz(reader: Reader, count: int, seed: int = 0) -> Counter[str]:
    """Damage a file `count` times; tells how often it was refused, and what is wrong where it was not."""
    whole, chance, found = reader.path.read_bytes(), random.Random(seed), Counter[str]()
    reader.renew()
    wanted = reader.read(reader)
    reader.renew()
    for _ in range(count):
        what = damage(reader, chance)
        if reader.path.read_bytes() == whole:
            continue
        found["tried"] += 1
        try:
            got = reader.read(reader)
        except ValueError as error:
            is_sentence = "\n" not in str(error) and len(str(error)) <= LONGEST
            found["refused" if is_sentence else f"no sentence: {what}: {error}"] += 1
            if not reader.is_unchanged():
                found[f"refused after a change: {what}"] += 1
                reader.renew()
        except Exception as error:
            found[f"traceback: {what}: {error!r:.200}"] += 1
            reader.renew()
        else:
            found["accepted, unchanged" if got == wanted else f"accepted, changed: {what}"] += 1
            reader.renew()
        reader.path.write_bytes(whole)
    assert reader.read(reader) == wanted  # what has refused so much is of use still
    return found


def damage(reader: Reader, chance: random.Random) -> str:
    """Damage a file in one way; says how."""
    kinds = [_bits, _cut, _zeros, _longer, _header, _fact]
    if reader.deep:
        kinds += 4 * [partial(_tensor, harmless=reader.harmless)]
    return chance.choice(kinds)(reader.path, chance)


def _bits(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    place, bit = chance.randrange(len(content)), chance.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {place}"


def _cut(path: Path, chance: random.Random) -> str:
    content = path.read_bytes()
    end = chance.randrange(len(content))
    path.write_bytes(content[:end])
    return f"cut at {end}"


def _zeros(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content) - 64)
    content[place : place + 64] = bytes(64)
    path.write_bytes(content)
    return f"zeros at {place}"


def _longer(path: Path, chance: random.Random) -> str:
    path.write_bytes(path.read_bytes() + bytes(chance.randrange(1, 100)))
    return "longer"


def _raw(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["glue_sparse"])  # noqa: SIM118


def _sealed(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write with a valid seal; the number of tensors stays that of before."""
    kind = facts.pop("format")
    tensor_files.write(path, kind.rpartition(" ")[0], tensors, facts)


def _header(path: Path, chance: random.Random) -> str:
    header = chance.choice(HEADERS)
    save_file(_raw(path)[0], path, metadata={"glue_sparse": header})
    return f"header {header[:20]}"


def _fact(path: Path, chance: random.Random) -> str:
    tensors, facts = _raw(path)
    inner, key = facts, chance.choice([key for key in facts if key not in ("format", "sha256")])
    while isinstance(inner[key], dict) and inner[key] and chance.random() < 0.8:
        inner = inner[key]
        key = chance.choice(list(inner))
    old, optional = inner[key], inner[key] is None or type(inner[key]) in (int, float)
    fitting = [new for new in WRONG if type(new) is not type(old) and not (optional and type(new) in _NUMBERS)]
    how = chance.choice(["gone", "more", "wrong", "wrong", "deep"])
    if how == "gone":
        del inner[key]
    elif how == "more":
        inner[f"{key}x"] = old
    elif how == "deep":
        inner[key] = json.loads("[" * 400 + "]" * 400)
    else:
        inner[key] = chance.choice(fitting)
    _sealed(path, tensors, facts)
    return f"fact {key} {how}: {str(inner.get(key)):.30}"


_NUMBERS = (type(None), int, float)


def _tensor(path: Path, chance: random.Random, harmless: tuple[str, ...]) -> str:
    tensors, facts = _raw(path)
    key = chance.choice(list(tensors))
    how = chance.choice([name for name, (_, fits) in CHANGES.items() if fits(tensors[key]) and name not in harmless])
    if how == "gone":
        del tensors[key]
    elif how == "more":
        tensors[f"{key}x"] = tensors[key].clone()
    elif how == "renamed":
        tensors[f"{key}x"] = tensors.pop(key)
    else:
        tensors[key] = CHANGES[how][0](tensors[key].clone(), chance).contiguous()
    _sealed(path, tensors, facts)
    return f"{key} {how}"


def _with(value: float) -> Callable[[Tensor, random.Random], Tensor]:
    def change(tensor: Tensor, chance: random.Random) -> Tensor:
        tensor.view(-1)[chance.randrange(tensor.numel())] = value
        return tensor

    return change


def _is_positions(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.int32, torch.int64) and tensor.dim() == 1 and len(tensor) > 1


def _any(tensor: Tensor) -> bool:
    return True


def _has(tensor: Tensor) -> bool:
    return tensor.numel() > 0


CHANGES: dict[str, tuple[Callable[[Tensor, random.Random], Tensor], Callable[[Tensor], bool]]] = {
    "gone": (lambda t, _: t, _any),
    "more": (lambda t, _: t, _any),
    "renamed": (lambda t, _: t, _any),
    "int64": (lambda t, _: t.long(), lambda t: t.is_floating_point()),
    "bool": (lambda t, _: t.bool(), lambda t: t.dtype != torch.bool),
    "float16": (lambda t, _: t.half(), lambda t: t.dtype != torch.float16),
    "float64": (lambda t, _: t.double(), lambda t: t.dtype != torch.float64),
    "longer": (lambda t, _: torch.cat([t.view(-1), t.view(-1)[:1]]), _has),
    "shorter": (lambda t, _: t.reshape(-1)[1:], _has),
    "one": (lambda t, _: t.reshape(-1)[:1], lambda t: t.numel() > 1),
    "none": (lambda t, _: t.reshape(-1)[:0], _has),
    "no dimension": (lambda t, _: t.reshape(-1)[0], lambda t: t.numel() > 0 and t.dim() > 0),
    "another": (lambda t, _: t.unsqueeze(0), _any),
    "NaN": (_with(float("nan")), lambda t: t.is_floating_point() and t.numel() > 0),
    "infinite": (_with(float("inf")), lambda t: t.is_floating_point() and t.numel() > 0),
    "below 0": (_with(-1), _is_positions),
    "beyond": (_with(1 << 30), _is_positions),
    "twice": (lambda t, _: torch.cat([t[:1], t[:-1]]), _is_positions),
    "backwards": (lambda t, _: t.flip(0), _is_positions),
}
"""How -> (change of a tensor, which tensors it is for)."""
