"""What the names of parameters say: blocks, kinds, biases, and shell patterns. Loads no torch."""

import re
from fnmatch import fnmatchcase

BLOCK = re.compile(r"(.*?\.\d+)\.")
"""The part of a parameter's name that says which block of a stack it is in."""
OTHER = "other"
_PARTS = {
    "norms": r"norm|(^|\.)(ln|bn)_?\w?\.",
    "head": r"classifier|lm_head|qa_outputs|(^|\.)(score|cls)\.",
    "pooler": r"pooler",
    "attention": r"attention|attn|self_?att",
    "embeddings": r"embed|(^|\.)(wte|wpe|shared)\.",
    "feed-forward": r"intermediate|dense|mlp|(^|[._])(ffn?|fc|linear|lin)_?\w*\.",
}
"""Part of a transformer -> what its parameters' names hold; the first that fits counts."""
PARTS = ("embeddings", "attention", "feed-forward", "pooler", "norms", "biases", "head", OTHER)
"""All that `part_of` says, from the inputs to the outputs."""


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


def part_of(name: str) -> str:
    """Which of `PARTS` a parameter is of, by the names that transformers gives; all biases are one, the head's too."""
    if is_bias(name):
        return "biases"
    return next((part for part, words in _PARTS.items() if re.search(words, name.lower())), OTHER)
