"""The README's Python runs as it stands, on four kinds of model."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from networks import bert, collate, distilbert, examples, gpt2, roberta

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def seeded(build: Any) -> Any:
    torch.manual_seed(0)
    return build()


@pytest.mark.parametrize("build", [bert, roberta, distilbert, gpt2])
def test_the_library_examples_run(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    model = seeded(build)
    names: dict[str, Any] = {
        "model": model,
        "base_model": seeded(build),
        "training_arguments": TrainingArguments(
            output_dir="run", max_steps=3, use_cpu=True, save_strategy="no", disable_tqdm=True, learning_rate=1e-2
        ),
        "dataset": examples(24),
        "collator": collate,
        "batch": collate(examples(4)),
    }
    before = [p.detach().clone() for p in names["base_model"].parameters()]
    assert "density=0.005" in BLOCKS[0]
    exec(BLOCKS[0].replace("density=0.005", "density=0.2"), names)  # the models here are all head
    assert Path("my_task/sparse_diff.safetensors").is_file()
    assert all(torch.equal(p, q) for p, q in zip(names["base_model"].parameters(), before, strict=True))
    logits = partial(names["base_model"].eval(), **names["batch"])
    with names["diff"].applied(names["base_model"]):
        torch.testing.assert_close(logits().logits, model.eval()(**names["batch"]).logits, rtol=0, atol=0)


def test_the_score_example_chooses_entries():
    names: dict[str, Any] = {}
    exec("from glue_sparse import FixedMask\n" + BLOCKS[2].replace("0.005", "0.02"), names)
    model = bert()
    head = ("classifier.weight", "classifier.bias")
    masks = names["method"].prepare(model, head, lambda num_samples: [collate(examples(16))])
    everything = sum(p.numel() for p in model.parameters())
    assert sum(int(mask.sum()) for mask in masks.values()) == int(0.02 * everything) - 34


def test_the_readme_is_short_and_names_both_commands():
    assert len(README.splitlines()) < 190
    assert "bash run_quickstart.sh" in README and "bash run_tests.sh" in README
