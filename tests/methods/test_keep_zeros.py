"""A pruned model keeps its zeros, whatever trains it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from decoders import causal, gpt2_causal, logits, pruned, stock
from glue_sparse import KeepZeros, attach_zeros
from glue_sparse.core import bitmasks
from glue_sparse.core.params import encoder_matrices
from networks import bert
from training import trainer


def zeros_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Where the matrices inside the layers are zero."""
    return {n: p == 0 for n, p in model.state_dict().items() if "layer" in n or ".h." in n if n.endswith("weight")
            if "parametrizations" not in n and p.dim() > 1}  # fmt: skip


@pytest.mark.parametrize("make", [causal, gpt2_causal])
def test_fifty_steps_with_decay_leave_every_zero(make, tmp_path: Path):
    model = pruned(make())
    before = zeros_of(model)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attach_zeros(model, pattern=(2, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    ids = torch.arange(3, 23)[None]
    for _ in range(50):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, zero in zeros_of(model).items():
        assert torch.equal(zero, before[name]), name
    assert all((model.state_dict()[name] != start[name]).sum() > 100 for name in before)
    found, _ = stock(model, tmp_path)
    assert torch.equal(logits(found), logits(model))
    attach_zeros(found, pattern=(2, 4))


def test_zero_rows_of_an_embedding_stay_and_have_no_pattern():
    model = pruned(causal())
    table = model.model.embed_tokens.weight
    table.data[7] = 0
    attach_zeros(model, pattern=(2, 4))
    ids = torch.tensor([[7, 8, 7, 9]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    assert not model.state_dict()["model.embed_tokens.weight"][7].any()
    unpruned = causal()
    unpruned.model.embed_tokens.weight.data[7] = 0
    with pytest.raises(ValueError, match="no matrix of this model holds a zero"):
        attach_zeros(unpruned)


def test_a_killed_run_goes_on_and_keeps_them(tmp_path: Path):
    settings = {"weight_decay": 0.1, "save_strategy": "steps", "save_steps": 5}
    whole = trainer(tmp_path / "whole", pruned(bert()), KeepZeros(pattern=(2, 4)), **settings)
    before = zeros_of(whole.network)
    whole.train()
    cut = trainer(tmp_path / "cut", pruned(bert()), KeepZeros(pattern=(2, 4)), **settings)
    cut.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-5"))
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(cut.network.state_dict()[name], tensor), name
    after = zeros_of(cut.network)
    assert before and all(torch.equal(after[name], zero) for name, zero in before.items())


@pytest.mark.parametrize(("prepare", "options", "reason"), [
    (lambda model: model, {}, "no matrix of this model holds a zero"),
    (lambda model: pruned(model, 3), {"pattern": (2, 4)}, "keeps 3 of a group of 4"),
    (lambda model: pruned(model), {"pattern": (2, 5)}, "do not divide"),
    (lambda model: pruned(model), {"tensors": ("nothing*",)}, "nothing"),
    (lambda model: model, {"masks": {"lm_head": torch.ones(2, dtype=torch.bool)}}, "does not have"),
])  # fmt: skip
def test_what_is_not_pruned_so_is_refused(prepare, options, reason: str):
    model = prepare(causal())
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match=reason):
        attach_zeros(model, **options)
    assert before == {name: p.requires_grad for name, p in model.named_parameters()}


def test_masks_of_compressed_tensors_are_those_of_the_weights(tmp_path: Path):
    """Written here by the format's definition: NAME.bitmask, bits of each row with the lowest first, and NAME.shape."""
    model = pruned(causal())
    stored = {}
    for name in encoder_matrices(model):
        weight = model.get_parameter(name).detach()
        layer = name.removesuffix(".weight")
        bits = np.packbits((weight != 0).numpy(), axis=-1, bitorder="little")
        stored[f"{layer}.bitmask"], stored[f"{layer}.shape"] = torch.from_numpy(bits), torch.tensor(weight.shape)
        stored[f"{layer}.compressed"] = weight[weight != 0]
    save_file(stored, tmp_path / "model.safetensors")
    found = bitmasks.read(tmp_path)
    assert {name: mask.sum() for name, mask in found.items()} == {
        name: (model.get_parameter(name) != 0).sum() for name in encoder_matrices(model)
    }
    attach_zeros(model, masks=found)
    other = causal()
    with pytest.raises(ValueError, match="load the pruned model"):
        attach_zeros(other, masks=found)
    with pytest.raises(ValueError, match="holds no"):
        bitmasks.read(Path(save_file({"a": torch.ones(1)}, tmp_path / "b.safetensors") or tmp_path / "b.safetensors"))
