"""A plan as text: tables in markdown, CSV and JSON, each labelled as simulated, with what is assumed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from glue_sparse.scaling.devices import Device
from glue_sparse.scaling.plan import Cell, Work
from glue_sparse.scaling.shapes import Decoder
from glue_sparse.writing.files import json_text
from glue_sparse.writing.tables import csv_text, markdown

LABEL = "SIMULATED"
NO_ROOM = "does not fit"
ASSUMPTIONS = (
    "Models are shapes; no weights were loaded, and nothing was run on such GPUs.",
    "FSDP2: each layer is a group, and what lies outside of the layers is the root's, which stays gathered.",
    "Weights that train are kept in float32 and gathered in the type of products; frozen ones are kept in that type.",
    "Gradients of sharded tensors are reduced in float32 in every micro-step; Adam keeps two float32 numbers an entry.",
    "LoRA's matrices stand beside all seven linear maps of each layer, none at the output layer, and are sharded too.",
    "Values of active entries, their float32 gradients and Adam's numbers are whole on every GPU; their gradients are "
    "reduced and gathered once a step.",
    "The gradient of a weight with active entries is formed whole, so compute is that of full fine-tuning.",
    "Memory is a sum of the most of each part, which overstates it; what kernels and the allocator take is in "
    "`memory_share`.",
    "Layers are computed twice where their activations do not fit otherwise (`recomputed`).",
    "Bytes are sent by ring algorithms; between nodes, as many rings run as a node has GPUs.",
    "Overlapped: weights are gathered and sharded gradients reduced while products run, and what remains is the longer "
    "of the two. Apart: nothing overlaps.",
)


@dataclass(frozen=True)
class Plan:
    """Cells, and what they were computed for."""

    cells: Sequence[Cell]
    decoders: Mapping[str, Decoder]
    work: Work
    device: Device


def _gigabytes(count: float) -> str:
    return "0" if not count else f"{count / 1e9:.2f}" if count >= 5e6 else "<0.01"


def _seconds(number: float) -> str:
    return f"{number:.3f}"


def _fits(cell: Cell) -> str:
    return {None: NO_ROOM, True: "recomputed", False: "yes"}[cell.recomputes]


def _memory_line(cell: Cell) -> tuple[str, ...]:
    used = cell.memory
    parts = (used.weights, used.gathered, used.gradients, used.optimizer, used.active, used.kept, used.recomputed,
             used.total(cell.recomputes is not False))  # fmt: skip
    return (f"{cell.gpus:,}", cell.way, f"{cell.trains:,}", *map(_gigabytes, parts), _fits(cell))


_MEMORY = ("GPUs", "what trains", "entries", "weights", "gathered", "gradients", "Adam", "active", "activations",
           "recomputed", "total", "fits")  # fmt: skip


def _step_line(cell: Cell) -> tuple[str, ...]:
    sent = [_gigabytes(cell.sent[kind]) for kind in ("weights", "gradients", "other")]
    if cell.recomputes is None:
        return (f"{cell.gpus:,}", cell.way, *sent, NO_ROOM, *["-"] * 4)
    times = map(_seconds, (cell.compute, cell.communication, cell.hidden, cell.apart))
    return (f"{cell.gpus:,}", cell.way, *sent, *times, f"{int(float(f'{cell.tokens_per_second:.3g}')):,}")


_STEP = ("GPUs", "what trains", "weights", "gradients", "other", "products s", "sending s", "step s, overlapped",
         "apart", "tokens/s")  # fmt: skip


def _task(plan: Plan) -> str:
    work = plan.work
    steps = f"{work.micro_steps:,} micro-step{'s' if work.micro_steps > 1 else ''}"
    kept = "" if work.reshards else ", layers stay gathered after the forward pass"
    return (f"{plan.device.title}; {work.dtype}; {work.tokens:,} tokens a GPU in sequences of {work.length:,}, "
            f"{steps} an optimizer step{kept}")  # fmt: skip


def _assumed(plan: Plan) -> Iterator[str]:
    yield from ASSUMPTIONS
    for name, one in plan.device.constants().items():
        yield f"`{name}` = {one.value:,g} ({one.kind}): {one.source}."
    for name, decoder in plan.decoders.items():
        yield f"Shape of {name}: {decoder.source}."


def as_markdown(plan: Plan) -> str:
    """Two tables for each model, and the assumptions under them."""
    parts = [f"**{LABEL}, not measured.** {_task(plan)}."]
    for name, cells in groupby(plan.cells, lambda cell: cell.model):
        lines = [*cells]
        parts += [
            f"### {name}: {plan.decoders[name].num_entries():,} weights",
            f"{LABEL}: GB of one GPU at most, of which {plan.device.usable_bytes() / 1e9:g} can be filled",
            markdown(_MEMORY, [_memory_line(cell) for cell in lines]),
            f"{LABEL}: GB that each GPU sends in an optimizer step, and its seconds",
            markdown(_STEP, [_step_line(cell) for cell in lines]),
        ]
    parts += ["### Assumptions", "\n".join(f"* {one}" for one in _assumed(plan))]
    return "\n\n".join(parts) + "\n"


def _facts(plan: Plan, cell: Cell) -> dict[str, Any]:
    """A cell as names and plain values, in bytes and seconds; times are none where nothing fits."""
    used, times = cell.memory, ("compute", "communication", "hidden", "apart", "tokens_per_second")
    fits = cell.recomputes is not None
    return {
        "label": LABEL, "model": cell.model, "weights": plan.decoders[cell.model].num_entries(), "gpus": cell.gpus,
        "trains": cell.way, "entries": cell.trains, "fits": fits, "recomputes": cell.recomputes,
        **{f"bytes_{name}": value for name, value in asdict(used).items()},
        "bytes_total": used.total(cell.recomputes is not False),
        **{f"sent_{name}": value for name, value in cell.sent.items()},
        **{name: getattr(cell, name) if fits else None for name in times},
    }  # fmt: skip


def as_csv(plan: Plan) -> str:
    """A line for each cell: bytes and seconds."""
    lines = [_facts(plan, cell) for cell in plan.cells]
    return csv_text([*lines[0]], [[*line.values()] for line in lines])


def as_json(plan: Plan) -> str:
    """All cells, with constants and assumptions."""
    constants = {name: asdict(one) for name, one in plan.device.constants().items()}
    facts = {
        "label": LABEL, "device": {"title": plan.device.title, **constants}, "work": asdict(plan.work),
        "shapes": {name: asdict(decoder) for name, decoder in plan.decoders.items()},
        "assumptions": [*ASSUMPTIONS], "cells": [_facts(plan, cell) for cell in plan.cells],
    }  # fmt: skip
    return json_text(facts, "the plan", indent=1)


FORMATS: dict[str, Callable[[Plan], str]] = {"md": as_markdown, "csv": as_csv, "json": as_json}
