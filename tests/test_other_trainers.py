"""The programs of docs/other_trainers.md run, on a decoder of a few thousand weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset

import decoders
import glue_sparse
from documented import ROOT, blocks
from glue_sparse import SparseDiff

PAGE = ROOT / "docs" / "other_trainers.md"


def test_the_programs_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    first, accelerate, preferences, zeros, after = blocks(PAGE, "python")
    base = decoders.causal()
    base.save_pretrained("path/to/base")
    decoders.tokenizer().save_pretrained("path/to/base")
    told = 'SFTConfig("out", max_steps=2, report_to=[], use_cpu=True, bf16=False, save_steps=2)'
    program = first.replace('SFTConfig("out", save_steps=500)', told).replace("1_000_000", "1_000")
    names: dict[str, Any] = {"data": Dataset.from_list(decoders.MESSAGES)}
    exec(program, names)
    assert (tmp_path / "out/checkpoint-2/sparse_diff.safetensors").exists()
    model, names["batch"] = names["model"], {"input_ids": torch.arange(9)[None]}
    exec(preferences[preferences.index("with disabled"):], names | {"disabled": glue_sparse.disabled})
    names |= {"save_diffs": glue_sparse.save_diffs, "accelerator": (accelerator := Accelerator(cpu=True))}
    accelerator.prepare(model)
    exec(accelerate, names)
    assert (tmp_path / "out/step_500/sparse_diff.safetensors").exists()
    model.save_pretrained("path/to/after_rl")
    assert "attach_zeros(model, pattern=(2, 4))" in zeros and "FixedMask(start=diff" in after
    exec(after.splitlines()[0], names | {"SparseDiff": SparseDiff})
