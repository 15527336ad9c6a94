"""The table of `glue-sparse benchmark --time_to_loss`: what `time_to_loss` measures, as text and as JSON."""

import statistics
from pathlib import Path
from typing import Any

import torch

from glue_sparse.benchmarks import time_to_loss
from glue_sparse.writing.files import json_text, write_text
from glue_sparse.writing.tables import markdown

NOTE = """Weights and operations are the encoder's; operations are those of a training sequence / those of the dense
network. Steps are the median of the runs of all seeds, with the least and the most, looked at every so many steps;
seconds are steps x seconds per step, measured in turns in one process, moves of tiles included. `faster up to`: a
network is faster than the dense one as long as it needs no more steps than this."""


def run(quick: bool, data_dir: str | None, out: str | None) -> None:
    """Print the table, on the GPU where there is one, and write all numbers as JSON."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setting = time_to_loss.FULL if data_dir else time_to_loss.SIMULATION
    facts = time_to_loss.measure(device, time_to_loss.QUICK if quick else setting, data_dir)
    print(page(facts))
    if out:
        write_text(Path(out), json_text(facts, out))


def page(facts: dict[str, Any]) -> str:
    """A line for each network, and below what would have to be true for it to be faster than the dense one."""
    return f"{title(facts)}\n\n{markdown(*table(facts))}\n\n{NOTE}"


def table(facts: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and lines."""
    setting, networks = facts["setting"], facts["networks"]
    header = ("network", "weights", "operations", "rate", f"steps to {setting['target']:g} nats", "ms per step",
              "step / dense (quartiles)", "seconds", "seconds / dense", "faster up to")  # fmt: skip
    dense = networks[0]
    lines = []
    for one in networks:
        low, middle, high = one["to_dense"]
        seconds = "-" if one["seconds"] is None else f"{one['seconds']:.0f}"
        both = one["seconds"] is not None and dense["seconds"] is not None
        lines.append((
            one["name"], f"{one['weights']:,}", f"{one['flops'] / dense['flops']:.2f}", f"{one['rate']:g}",
            _steps(one, setting["most_steps"]), f"{1000 * one['per_step']:.1f}",
            f"{middle:.2f} ({low:.2f} to {high:.2f})", seconds,
            f"{one['seconds'] / dense['seconds']:.2f}" if both else "-",
            f"{dense['per_step'] / one['per_step']:.2f} x the dense steps",
        ))  # fmt: skip
    return header, lines


def _steps(one: dict[str, Any], most: int) -> str:
    """Median and range; where a seed did not reach the target, how many did and the worst loss in the end."""
    reached = [count for count in one["steps"] if count is not None]
    if len(reached) < len(one["steps"]):
        return f"{len(reached)} of {len(one['steps'])} seeds in {most:,} ({one['last_loss']:.2f})"
    return f"{statistics.median(reached):,.0f} ({min(reached):,} to {max(reached):,})"


def title(facts: dict[str, Any]) -> str:
    """Which text, device and network."""
    setting = facts["setting"]
    told = [
        facts["text"], f"{facts['device']}, {facts['threads']} threads",
        f"BERT of {setting['layers']} layers of {setting['hidden']}, {setting['batch']} x {setting['length']} tokens, "
        f"{setting['vocab_size']} pieces, seeds {', '.join(map(str, setting['seeds']))}",
    ]  # fmt: skip
    return "; ".join(told)
