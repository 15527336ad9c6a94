"""Entries of a model counted by part, layer or kind of tensor, which the tensors' names say; loads no torch."""

import re
from collections.abc import Callable, Iterable

from glue_sparse.core.names import PARTS, block_of, kind_of, part_of

Counts = dict[str, tuple[int, int]]
"""What is counted -> (active, all) entries."""


def layer_of(name: str) -> str:
    """A parameter's layer: its name up to the first number, and without its last word where there is none."""
    return block_of(name) or name.rpartition(".")[0]


BY: dict[str, Callable[[str], str]] = {"part": part_of, "layer": layer_of, "kind": kind_of}
"""How entries can be counted -> what a parameter's are counted under."""


def counted(tensors: Iterable[tuple[str, tuple[int, int]]], key: Callable[[str], str]) -> Counts:
    """The sums over tensors of one key, in the order in which keys first occur.

    Args:
        tensors: (name of a tensor, its active and all entries); a name may occur several times.
    """
    counts: Counts = {}
    for name, (active, entries) in tensors:
        before = counts.get(key(name), (0, 0))
        counts[key(name)] = (before[0] + active, before[1] + entries)
    return counts


def ordered(tensors: Iterable[tuple[str, tuple[int, int]]], by: str) -> Counts:
    """The same by one of `BY`: parts in the order of `PARTS`, others in that of their names, layer 2 before 10."""
    counts = counted(tensors, BY[by])
    return {key: counts[key] for key in sorted(counts, key=PARTS.index if by == "part" else _natural)}


def _natural(name: str) -> list[tuple[bool, int, str]]:
    return [(word.isdecimal(), int(word) if word.isdecimal() else 0, word) for word in re.split(r"(\d+)", name)]
