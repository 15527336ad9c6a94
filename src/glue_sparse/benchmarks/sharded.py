"""Starts ranks that train with a base that is shared out, and prints what they sent and how long they took."""

import json
import logging
import os
import platform
import tempfile
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import transformers
from torch.distributed.device_mesh import init_device_mesh

from glue_sparse.benchmarks.links import Links
from glue_sparse.benchmarks.sharded_steps import DENSITY, EXAMPLES, LENGTH, RANK, SHAPE, Measured, measure
from glue_sparse.benchmarks.sharded_tables import page
from glue_sparse.benchmarks.training import peft_library
from glue_sparse.scaling.devices import Device
from glue_sparse.scaling.shapes import Decoder
from glue_sparse.writing.fields import typed
from glue_sparse.writing.files import json_text


def device_type(num_processes: int) -> str:
    """Where ranks compute: on a GPU each, where there are as many, or on the CPU."""
    return "cuda" if torch.cuda.is_available() and torch.cuda.device_count() >= num_processes else "cpu"


def _rank(rank: int, count: int, shape: Decoder, steps: int, folder: str) -> None:
    """One rank; the first leaves what was found."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore", FutureWarning)  # of torch and transformers about themselves, from each rank
    kind = device_type(count)
    if kind == "cuda":
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(_threads(count))
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", init_method=meeting, rank=rank, world_size=count)
    try:
        mesh = init_device_mesh(kind, (count,))
        links = Links(shape, mesh, EXAMPLES * LENGTH)
        steps_of = [asdict(one) for one in measure(shape, mesh, steps, links.sample)]
        found = {"device": asdict(links.device()), "found": steps_of}
        if rank == 0:
            Path(folder, "found.json").write_text(json_text(found, "the ranks' numbers"), encoding="utf-8")
    finally:
        dist.destroy_process_group()


def _threads(count: int) -> int:
    """Of a rank, so that all together have as many as there are cores."""
    return max(1, (os.cpu_count() or 1) // count)


def run(num_processes: int, hidden_size: int, steps: int, out: str | None) -> None:
    """Print the tables, and write all numbers as JSON; ValueError where peft is not installed.

    Args:
        hidden_size: of both models, of which the heads' number must be a divisor; inner layers are twice as wide.
    """
    peft = peft_library()  # here, not in the ranks
    shape = replace(SHAPE, hidden_size=hidden_size, intermediate_size=2 * hidden_size)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (num_processes, shape, steps, folder), nprocs=num_processes)  # pyright: ignore
        told = json.loads(Path(folder, "found.json").read_text(encoding="utf-8"))
    found, device = [Measured(**one) for one in told["found"]], typed(Device, told["device"], "the ranks' numbers")
    print(page(found, shape, device, num_processes))
    versions = {"python": platform.python_version(), "torch": torch.__version__,
                "transformers": transformers.__version__, "peft": peft.__version__}  # fmt: skip
    print(f"{os.cpu_count()} cores, " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    if out:
        facts = {"num_processes": num_processes, "density": DENSITY, "rank": RANK, "batch": [EXAMPLES, LENGTH],
                 "shape": asdict(shape), "versions": versions, **told}  # fmt: skip
        Path(out).write_text(json_text(facts, out), encoding="utf-8")
