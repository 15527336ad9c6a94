"""The programs of docs/mixed_batches.md run, on a BERT of two layers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from documented import ROOT, blocks
from glue_sparse import DiffInfo, load_base
from mixed_tasks import random_task

OUTPUTS = {"rte": 2, "stsb": 1, "mnli": 3}


def test_the_programs_of_the_page_run(tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    info = DiffInfo(tiny_bert, "BertForSequenceClassification", num_labels=2)
    for seed, (task, outputs) in enumerate(OUTPUTS.items()):
        random_task(load_base(info), seed, outputs=outputs, info=info).save_file(f"runs/{task}")
    names: dict[str, Any] = {}
    for program in blocks(ROOT / "docs" / "mixed_batches.md", "python"):
        exec(program, names)
    assert names["widths"] == [3, 1, 2, 3, 2]
    assert torch.allclose(names["one_by_one"]["logits"][1], names["bank"].model(**names["batch"]).logits[1], atol=1e-5)
