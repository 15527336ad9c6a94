"""The grammar of model names: architectures with random weights, and the seed of those. Loads no torch."""

import re

BERTS = ("bert_tiny", "bert_mini", "bert_small", "bert_medium", "bert_base")
"""Architectures of `bert_family`, without weights."""
LLAMAS = ("llama_tiny", "llama_mini", "llama_small")
"""The same of `llama_family`."""
RESNETS = ("resnet9", "resnet9_narrow", "resnet34")
"""Networks of `vision` that start from random weights; NAME@SEED is one of them with its weights."""


def is_size(model: str) -> bool:
    """Whether a name, without a seed, is one of `BERTS` or `LLAMAS`, to be trained on text from the start."""
    return model in (*BERTS, *LLAMAS)


def is_resnet(model: str) -> bool:
    """Whether a name says one of `RESNETS`, with or without a seed."""
    return model.partition("@")[0] in RESNETS


def scratch_of(model: str) -> tuple[str, int | None]:
    """`minilm@scratch7` -> (`minilm`, 7), the architecture and the seed of its random weights; no seed: pretrained."""
    found = re.fullmatch(r"(.+)@scratch([0-9]+)", model)
    return (found[1], int(found[2])) if found else (model, None)


def base_name(model: str, seed: int, from_scratch: bool) -> str:
    """What a diff names as its base: `model` itself, or from scratch `minilm@scratch7`, which loads as that again."""
    random = (from_scratch or is_size(model)) and scratch_of(model)[1] is None
    return f"{model}@scratch{seed}" if random else model


def is_random(model: str) -> bool:
    """Whether a base's name says random weights."""
    return is_resnet(model) or scratch_of(model)[1] is not None
