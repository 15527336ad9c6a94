"""Adapters that peft trains for a few steps and saves, and what it makes of a folder."""

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from glue_sparse.core.parametrization import current_tensors


def trained(base: Any, config: PeftConfig, folder: Path, num_steps: int = 3) -> PeftModel:
    """An adapter of a copy of `base`, trained to move its logits, and saved."""
    torch.manual_seed(0)
    model: Any = get_peft_model(copy.deepcopy(base), config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for step in range(num_steps):
        model.train()
        answer = model(**batch()).logits
        (answer.square().mean() + (answer * torch.randn_like(answer)).mean() * 5 + step).backward()
        optimizer.step()
        optimizer.zero_grad()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    return loaded(base, folder)


def loaded(base: Any, folder: Path) -> PeftModel:
    """What peft makes of a folder, on a copy of the base; it must know all that is in it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(copy.deepcopy(base), str(folder))
    assert not [one for one in said if "missing adapter keys" in str(one.message)]
    return model.eval()


def batch() -> dict[str, Tensor]:
    """Two sequences of tokens that every tiny network has."""
    return {"input_ids": torch.arange(5, 25).view(2, 10), "attention_mask": torch.ones(2, 10, dtype=torch.long)}


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Of the batch, without dropout."""
    return model.eval()(**batch()).logits


def merged(model: Any) -> nn.Module:
    """The ordinary model that peft makes of an adapter."""
    return model.merge_and_unload()


def differing(one: nn.Module, other: nn.Module) -> list[str]:
    """Names of tensors of which any bit differs."""
    found, wanted = current_tensors(one), current_tensors(other)
    assert found.keys() == wanted.keys()
    return [name for name, tensor in found.items() if not torch.equal(tensor, wanted[name])]
