"""Measures the hot paths beside their floors: `glue-sparse benchmark --limits`."""

import os
import platform
from pathlib import Path as File
from typing import Any

import torch
import transformers

from glue_sparse.benchmarks.bank_ways import Times, Way, alternating, nothing
from glue_sparse.benchmarks.limits import ceilings, costs
from glue_sparse.benchmarks.limits.ceilings import Ceilings
from glue_sparse.benchmarks.limits.paths import MINILM, SMALL, Path, paths
from glue_sparse.benchmarks.training import DEVICE
from glue_sparse.writing.files import json_text
from glue_sparse.writing.tables import markdown

HEADER = ("path", "MB", "GFLOP", "bound by", "floor, ms", "median, ms", "range, ms", "median / floor", "least / floor")


def measured(rounds: int, bf16: bool, quick: bool) -> dict[str, Any]:
    """All numbers, for JSON.

    The ceilings are measured at first and then once in each round, in which the paths take turns; the highest count.

    Args:
        rounds: that are counted.
        bf16: training steps and tiles under bfloat16 autocast.
        quick: a small model and small ceilings, which only show that it works.
    """
    size, tried = SMALL if quick else MINILM, ceilings.trials(DEVICE, quick)
    best = ceilings.measured(tried)
    found = [*paths(size, bf16)]
    ways = [*(path.way for path in found), *(Way(one.name, nothing, one.call) for one in tried)]
    times = alternating(ways, rounds)
    best = best.best(ceilings.of(tried, [one.least for one in times[len(found) :]]))
    return {
        "device": DEVICE.type, "threads": torch.get_num_threads(), "cores": os.cpu_count(), "rounds": rounds,
        "bf16": bf16, "quick": quick, "size": size._asdict(), "ceilings": best._asdict(),
        "paths": [_numbers(path, one, best) for path, one in zip(found, times, strict=False)],
        "versions": {"python": platform.python_version(), "torch": torch.__version__,
                     "transformers": transformers.__version__},
    }  # fmt: skip


def _numbers(path: Path, times: Times, best: Ceilings) -> dict[str, Any]:
    parts = [{**part._asdict(), "seconds": part.seconds(best), "bound": part.bound(best)} for part in path.parts]
    longest = max(parts, key=lambda part: part["seconds"])
    return {"path": path.way.name, "bytes": sum(part.bytes for part in path.parts),
            "flops": sum(part.flops for part in path.parts), "bound": longest["bound"],
            "floor": costs.floor(path.parts, best), "seconds": times._asdict(), "parts": parts}  # fmt: skip


def lines(facts: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table's lines, below `HEADER`."""
    found = []
    for one in facts["paths"]:
        took, floor = one["seconds"], one["floor"]
        found.append((
            one["path"], f"{one['bytes'] / 1e6:,.1f}", f"{one['flops'] / 1e9:,.2f}", one["bound"],
            f"{1000 * floor:.2f}", f"{1000 * took['median']:.2f}",
            f"{1000 * took['least']:.2f}-{1000 * took['most']:.2f}", f"{took['median'] / floor:.1f}",
            f"{took['least'] / floor:.1f}",
        ))  # fmt: skip
    return found


def said(facts: dict[str, Any]) -> str:
    """What the floors are made of, in words."""
    best, size = facts["ceilings"], facts["size"]
    products = ", ".join(f"{rate / 1e9:,.1f} GFLOP/s in {name}" for name, rate in best["products"].items())
    precision = "bfloat16 autocast" if facts["bf16"] else "float32"
    return (
        f"{facts['device']}, {facts['threads']} threads; {precision}; {size['layers']} layers of {size['hidden']}, "
        f"{size['rows']} x {size['tokens']} tokens; medians of {facts['rounds']} rounds, in turns. "
        f"Ceilings: a copy moves {best['copy'] / 1e9:.1f} GB/s, products reach {products}. Floor: in each part that "
        "waits for the one before, the larger of the times for its bytes and its operations; their sum."
    )


def run(steps: int, bf16: bool, quick: bool, out: str | None) -> None:
    """Print the table, and write all numbers as JSON."""
    facts = measured(steps, bf16, quick)
    print(f"{said(facts)}\n\n{markdown(HEADER, lines(facts))}\n")
    print(", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    if out:
        File(out).write_text(json_text(facts, out), encoding="utf-8")
