"""On a GPU, by accelerate's launcher with the shipped configuration: one rank ends as an ordinary run does."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glue_sparse import SparseDiff

RUN = [
    "-m", "glue_sparse", "train", "--task", "tweets", "--model", "minilm", "--method", "fish", "--density", "0.005",
    "--max_train_samples", "64", "--max_eval_samples", "32", "--max_steps", "4",
]  # fmt: skip


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_one_rank_that_holds_the_whole_base_in_parts(tmp_path: Path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/fsdp2.yaml",
              "--num_processes", "1"]  # fmt: skip
    for name, command in (("alone", [sys.executable]), ("shared", launch)):
        subprocess.run([*command, *RUN, "--output_dir", str(tmp_path / name)], check=True)
    alone, shared = (SparseDiff.from_pretrained(tmp_path / name) for name in ("alone", "shared"))
    assert alone.indices.keys() == shared.indices.keys()
    for name, values in alone.values.items():
        assert torch.equal(alone.indices[name], shared.indices[name])
        torch.testing.assert_close(shared.values[name], values, rtol=1e-3, atol=1e-5)
