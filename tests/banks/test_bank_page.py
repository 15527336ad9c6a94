"""The programs of docs/bank.md run, one after the other, on a BERT of two layers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bank_tasks import made
from documented import ROOT, blocks
from glue_sparse import DiffInfo, load_base

LABELS = {"rte": ("yes", "no"), "stsb": (), "mnli": ("yes", "perhaps", "no")}


def test_the_programs_of_the_page_run(
    tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    for seed, (task, labels) in enumerate(LABELS.items()):
        facts: dict[str, Any] = {"base_model": tiny_bert, "model_class": "BertForSequenceClassification", "task": task,
                                 "labels": labels, "num_labels": len(labels) or 1}  # fmt: skip
        torch.manual_seed(0)
        made(load_base(DiffInfo(**facts)), seed, **facts).save_pretrained(f"runs/{task}")
    names: dict[str, Any] = {}
    for program in blocks(ROOT / "docs" / "bank.md", "python"):
        exec(program, names)
    shown = capsys.readouterr().out
    assert "['rte', 'stsb', 'mnli'] () stsb" in shown and "| mnli" in shown and "| stsb + rte" in shown
    assert "1 tensors are not what this bank has left in the model (classifier.bias)" in shown
    assert len(names["small"]) == 100
