"""One rank of tests/scaling/test_sent_steps.py: counts a step of each contender at a tiny size. Run by `run_ranks`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from glue_sparse.benchmarks.links import Links
from glue_sparse.benchmarks.sharded_steps import EXAMPLES, LENGTH, measure
from glue_sparse.scaling.shapes import Decoder

SHAPE = Decoder(vocab_size=507, hidden_size=16, intermediate_size=23, num_hidden_layers=2, num_attention_heads=2,
                num_key_value_heads=1, source="tests")  # fmt: skip
"""Rows that two ranks cannot share out evenly."""

if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    links = Links(SHAPE, mesh, EXAMPLES * LENGTH)
    told = {"found": [asdict(one) for one in measure(SHAPE, mesh, 1, links.sample)], "device": asdict(links.device())}
    Path(sys.argv[1], f"rank{dist.get_rank()}.json").write_text(json.dumps(told))
    dist.destroy_process_group()
