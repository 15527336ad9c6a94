"""What the names of parameters say: blocks, kinds, biases, and shell patterns. Loads no torch."""

import re
from fnmatch import fnmatchcase

BLOCK = re.compile(r"(.*?\.\d+)\.")
"""The part of a parameter's name that says which block of a stack it is in."""


def is_bias(name: str) -> bool:
    """Whether the last part of a parameter's name says bias (`in_proj_bias` counts, `bias_proj.weight` does not)."""
    return "bias" in name.rpartition(".")[2]


def match(names: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Names that match any shell pattern, in the order of `names`.

    Raises:
        ValueError: a pattern matches nothing, which is nearly always a typing error.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"the pattern {pattern!r} matches no parameter; the first names are {names[:3]}")
    return tuple(name for name in names if any(fnmatchcase(name, p) for p in patterns))


def block_of(name: str) -> str:
    """The block that a parameter is in, `encoder.layer.3`; empty outside the blocks."""
    numbered = BLOCK.match(name)
    return numbered[1] if numbered else ""


def kind_of(name: str) -> str:
    """A parameter's name inside its block, `output.dense.weight`; its whole name outside the blocks."""
    return name.removeprefix(f"{block_of(name)}.")
