"""Damaged and foreign texts, made from a good one by a seed: values of other kinds, what lacks or is too much, cuts."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

VALUES: list[Any] = [
    None, [], {}, "x", "", 5, 0, -1, 2.5, True, float("nan"), float("inf"), 10**400, ["x"], {"x": 1}, [None], "a\nb",
    "\u2028", "--overwrite", ".", "x" * 4000, [[[]]],
]  # fmt: skip
"""What takes the place of a value."""


def damaged(value: Any, seed: int, write: Callable[[Any], str] = json.dumps) -> bytes:
    """A text of a value, damaged in one place."""
    rng = random.Random(seed)
    if rng.random() < 0.7:
        changed = _changed(copy.deepcopy(value), rng)
        return write(changed).encode("utf-8", "surrogatepass")
    return _cut(write(value), rng)


def _changed(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.05:
        return rng.choice(VALUES)
    holder, key = rng.choice([*_places(value)])
    kind = rng.choice(["replaced", "replaced", "replaced", "missing", "extra", "nested"])
    if kind == "replaced":
        holder[key] = rng.choice(VALUES)
    elif kind == "missing":
        del holder[key]
    elif kind == "nested":
        holder[key] = _nested(rng.choice([50, 150]), rng.choice([[], {}]), holder[key])
    elif isinstance(holder, dict):
        holder[rng.choice(["x", "", "a b", "..", "sweep", "start", "when"])] = rng.choice(VALUES)
    else:
        holder.append(rng.choice(VALUES))
    return value


def _nested(depth: int, kind: Any, value: Any) -> Any:
    for _ in range(depth):
        value = [value] if isinstance(kind, list) else {"a": value}
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield value, key
        yield from _places(one)


def _cut(text: str, rng: random.Random) -> bytes:
    data, place = bytearray(text.encode()), rng.randrange(len(text))
    kind = rng.choice(["cut", "flip", "zeros", "twice", "deep", "word"])
    if kind == "cut":
        return bytes(data[:place])
    if kind == "flip":
        data[place] ^= 1 << rng.randrange(8)
        return bytes(data)
    if kind == "zeros":
        return bytes(data[:place]) + bytes(8) + bytes(data[place + 8 :])
    if kind == "twice":
        start = rng.randrange(place + 1)
        return bytes(data[:place] + data[start:place] + data[place:])
    put = (
        "[" * 3000 if kind == "deep" else rng.choice(["NaN", "1e999", ".nan", "&a", "*a", "!!int", "\ufeff"])
    ).encode()
    return bytes(data[:place]) + put + bytes(data[place:])
