"""Measures swaps of tasks in one model: masks of several kinds, beside other ways, first uses, and a thousand tasks."""

import multiprocessing as mp
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from glue_sparse.banks.bank import TaskBank
from glue_sparse.benchmarks import memory
from glue_sparse.benchmarks.bank_ways import (
    Times,
    Way,
    alternating,
    forwards,
    of_bank,
    of_diffs,
    of_folder,
    of_peft,
    of_states,
    timed,
)
from glue_sparse.benchmarks.fisher import sample
from glue_sparse.benchmarks.limits.ceilings import copy_rate
from glue_sparse.benchmarks.limits.costs import num_lines
from glue_sparse.benchmarks.training import DEVICE, batch_of, on_device
from glue_sparse.core.chosen import narrow
from glue_sparse.core.masks import select
from glue_sparse.core.params import body_names, head_names
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.models.loading import load_classifier
from glue_sparse.scores.fisher import fisher
from glue_sparse.writing.tables import markdown

DENSITY = 0.005
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
"""BERT-large's shape; its weights are random."""
RUN = 4
"""Neighbours that are active together in simulated clusters; of FISH masks of MiniLM two share a cache line."""
EXAMPLES = 256
LINE = 64
"""Bytes that memory is read and written by."""
TASKS = 1000

Places = dict[str, Tensor]
"""Parameter name -> [k] int64, sorted flat positions."""


class Case(NamedTuple):
    """Two tasks of one model, with masks of one kind."""

    model: str
    masks: str
    pair: tuple[SparseDiff, SparseDiff]


def drawn(model: nn.Module, seed: int, run: int) -> Places:
    """0.5 % of each tensor of the body, in runs of neighbours that begin anywhere."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name in body_names(model, head_names(model)):
        size = model.get_parameter(name).numel()
        starts = torch.randint(0, size, (max(1, round(DENSITY * size / run)), 1), generator=generator)
        found[name] = (starts + torch.arange(run)).clamp(max=size - 1).unique()
    return found


def scored(task: str, data_dir: str | None) -> tuple[str, nn.Module, list[Places]]:
    """MiniLM, and two FISH masks of it, each of half of the examples."""
    title, model, names, batches = sample(task, data_dir, EXAMPLES)
    budget, found = int(DENSITY * sum(p.numel() for p in model.parameters())), []
    for half in (batches[: len(batches) // 2], batches[len(batches) // 2 :]):
        masks = select(fisher(model, names, half, progress=False), budget)
        found.append({name: mask.flatten().nonzero().squeeze(1).cpu() for name, mask in masks.items()})
    return title, model.eval(), found


def diff_of(model: nn.Module, places: Places, seed: int) -> SparseDiff:
    """Random values there, and a head of its own."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: tuple(model.get_parameter(name).shape) for name in places}
    indices = {name: narrow(found, model.get_parameter(name).numel()) for name, found in places.items()}
    values = {name: torch.randn(len(found), generator=generator) for name, found in places.items()}
    whole = {name: torch.randn(model.get_parameter(name).shape, generator=generator) for name in head_names(model)}
    return SparseDiff(indices, values, whole, shapes, dict.fromkeys(places, "0" * 64), DiffInfo("random values"))


def lines_of(pair: Sequence[SparseDiff], line: int = LINE) -> int:
    """Cache lines of `line` bytes that a swap between these diffs has to touch, of float32 tensors."""
    names = {name for diff in pair for name in diff.indices}
    return num_lines((torch.cat([diff.positions(name) for diff in pair]) for name in names), line)


def overlap(pair: tuple[SparseDiff, SparseDiff]) -> float:
    """Share of the first one's positions that the second has too."""
    first, second = pair
    both = sum(int(torch.isin(first.positions(n), second.positions(n)).sum()) for n in first.indices)
    return both / first.num_active


def swaps_of(cases: Sequence[Case], model: nn.Module, rounds: int, speed: float) -> list[dict[str, Any]]:
    """Seconds of each case's swaps, in one bank, in turns."""
    bank, ways = TaskBank(model, max_loaded=None), []
    for case in cases:
        pair = (f"{case.masks} 1", f"{case.masks} 2")
        for name, diff in zip(pair, case.pair, strict=True):
            bank.add(name, diff, check=False)
            bank.use(name)
        ways += of_bank(bank, pair)
    times, found = alternating(ways, rounds), []
    bank.use(None)
    for index, case in enumerate(cases):
        floor = 2 * LINE * lines_of(case.pair) / speed
        found.append({
            "model": case.model, "masks": case.masks, "entries": case.pair[0].num_active,
            "overlap": overlap(case.pair), "lines": lines_of(case.pair), "floor": floor,
            "to_task": times[2 * index]._asdict(), "to_base": times[2 * index + 1]._asdict(),
            "bytes": bank.memory().tasks[f"{case.masks} 1"].total - case.pair[0].nbytes,
        })  # fmt: skip
    return found


def beside(ways: Sequence[Way], plain: Any, rounds: int, model: str) -> list[dict[str, Any]]:
    """Seconds of each way in turns, and of a forward pass after it beside that of a plain model."""
    times = alternating(ways, rounds)
    models = {way.name: way.model for way in ways if way.model is not None}
    passed = forwards({"plain": plain, **models}, on_device(short_batch()), rounds)
    return [{"model": model, "way": way.name, **found._asdict(), "beside_bank": found.median / times[0].median,
             "forward_beside_plain": passed[way.name] / passed["plain"] if way.name in passed else None}
            for way, found in zip(ways, times, strict=True)]  # fmt: skip


def short_batch() -> dict[str, Tensor]:
    """One text of 32 tokens."""
    return {name: tensor for name, tensor in batch_of(1, 32).items() if name != "labels"}


def first_uses(build: Callable[[], nn.Module], diff: SparseDiff, rounds: int) -> dict[str, Any]:
    """Seconds to add a file, to use it for the first time, and of that to read, check and decode it; a thousand."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [diff.save_file(Path(folder, name)) for name in ("first", "second")]
        bank = TaskBank(build(), max_loaded=1)
        for path in paths:
            bank.add(path.parent.name, path, check=False)
        added = Way("add", _absent(bank), lambda: bank.add("new", paths[0], check=False))
        ways = [Way("first use", lambda: bank.use("first"), lambda: bank.use("second")), added,
                Way("read", lambda: None, lambda: SparseDiff.from_pretrained(paths[0]))]  # fmt: skip
        found = {way.name: one._asdict() for way, one in zip(ways, alternating(ways, rounds), strict=True)}
        with mp.get_context("spawn").Pool(1) as apart:  # whose memory nothing else has filled before
            counted = apart.apply(many, (paths, torch.get_num_threads()))
        return {"file": paths[0].stat().st_size, "seconds": found, "many": counted}


def _absent(bank: TaskBank) -> Callable[[], None]:
    return lambda: bank.remove("new") if "new" in bank else None


def many(paths: Sequence[Path], threads: int) -> dict[str, Any]:
    """A thousand names for two files: seconds to add them, and resident bytes before, then, and after uses of 100."""
    torch.set_num_threads(threads)
    most = 8
    bank, before = TaskBank(build(), max_loaded=most), memory.now(DEVICE)
    took = timed(lambda: [bank.add(f"task {n}", paths[n % 2], check=False) for n in range(TASKS)]).clock
    added = memory.now(DEVICE)
    for number in range(0, TASKS, TASKS // 100):
        bank.use(f"task {number}")
    held = sum(bool(one.total) for one in bank.memory().tasks.values())
    one = max(task.total for task in bank.memory().tasks.values())
    return {"seconds": took, "before": before, "added": added, "used": memory.now(DEVICE), "held": held,
            "max_loaded": most, "task": one}  # fmt: skip


def measured(rounds: int, task: str, data_dir: str | None, quick: bool) -> tuple[str, dict[str, Any]]:
    """The tables, and all numbers behind them.

    Args:
        rounds: that are counted.
        task, data_dir: whose examples the FISH masks are of.
        quick: MiniLM alone.
    """
    speed, (title, model, places) = copy_rate(DEVICE), scored(task, data_dir)
    named = {f"FISH, {title}": places, "random": [drawn(model, seed, 1) for seed in range(2)],
             f"simulated runs of {RUN}": [drawn(model, seed, RUN) for seed in range(2)]}  # fmt: skip
    cases = [Case("MiniLM", kind, _pair(model, found)) for kind, found in named.items()]
    swaps = swaps_of(cases, model, rounds, speed)
    with tempfile.TemporaryDirectory() as folder:
        ways = small_ways(model, cases[0].pair, Path(folder))
        others = beside(ways, build(), rounds, "MiniLM")
    del ways
    first = first_uses(build, cases[0].pair[0], rounds)
    if not quick:
        large, more = measured_large(rounds, speed)
        swaps, others = swaps + large, others + more
    facts = {"bandwidth": speed, "rounds": rounds, "swaps": swaps, "beside": others, "first": first}
    return page(facts), facts


def build() -> nn.Module:
    """MiniLM with a head of two outputs, on the device."""
    model: Any = load_classifier("minilm", 2, ("a", "b"))
    return model.to(DEVICE).eval()


def _pair(model: nn.Module, places: Sequence[Places]) -> tuple[SparseDiff, SparseDiff]:
    first, second = (diff_of(model, found, seed) for seed, found in enumerate(places))
    return first, second


def small_ways(model: nn.Module, pair: tuple[SparseDiff, SparseDiff], folder: Path) -> list[Way]:
    """All ways, each with a MiniLM of its own."""
    plain: Any = build()
    plain.save_pretrained(folder)
    return [*_bank_ways(model, pair), of_diffs(build(), pair), *of_peft(build), of_states(plain, pair),
            of_folder(folder)]  # fmt: skip


def _bank_ways(model: nn.Module, pair: tuple[SparseDiff, SparseDiff]) -> list[Way]:
    bank = TaskBank(model)
    for name, diff in zip(("first", "second"), pair, strict=True):
        bank.add(name, diff, check=False)
    return of_bank(bank, ("first", "second"))


def measured_large(rounds: int, speed: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The same for BERT-large's shape: two kinds of masks, and the ways that need no more than three copies."""
    config: dict[str, Any] = {**LARGE, "vocab_size": 30522}
    model = BertForSequenceClassification(BertConfig(**config)).to(DEVICE).eval()  # pyright: ignore
    kinds = {"random": 1, f"simulated runs of {RUN}": RUN}
    cases = [Case("BERT-large's shape", kind, _pair(model, [drawn(model, seed, run) for seed in range(2)]))
             for kind, run in kinds.items()]  # fmt: skip
    swaps = swaps_of(cases, model, rounds, speed)
    bank, states = _bank_ways(model, cases[0].pair), of_states(model, cases[0].pair)
    ways = [*bank[:1], states._replace(before=bank[1].swap, model=None)]
    times = alternating([ways[0]], rounds), alternating([ways[1]], rounds)
    found = [{"model": cases[0].model, "way": way.name, **one._asdict(), "beside_bank": one.median / times[0][0].median,
              "forward_beside_plain": None} for way, (one,) in zip(ways, times, strict=True)]  # fmt: skip
    return swaps, found


def page(facts: dict[str, Any]) -> str:
    """The tables."""
    swaps = [(one["model"], one["masks"], f"{one['entries']:,}", f"{one['overlap']:.2f}", f"{one['bytes'] / 1e6:.2f}",
              f"{one['lines']:,}", f"{1000 * one['floor']:.2f}", *_ms(one["to_task"]), *_ms(one["to_base"]))
             for one in facts["swaps"]]  # fmt: skip
    columns = ("model", "masks of 0.5 %", "entries", "in both", "MB a task", "cache lines", "floor, ms",
               "task to task, ms", "range", "processor", "to the base, ms", "range", "processor")  # fmt: skip
    others = [(one["model"], one["way"], *_ms(one), f"{one['beside_bank']:.1f}", _ratio(one["forward_beside_plain"]))
              for one in facts["beside"]]  # fmt: skip
    first, counted = facts["first"], facts["first"]["many"]
    uses = [(name, *_ms(one)) for name, one in first["seconds"].items()]
    tables = (
        markdown(columns, swaps),
        f"floor: each line that both tasks touch, read and written once at {facts['bandwidth'] / 1e9:.1f} GB/s, which "
        "a copy reaches",
        markdown(("model", "way", "median ms", "range", "processor", "beside TaskBank", "forward / plain"), others),
        markdown((f"a file of {first['file'] / 1e6:.2f} MB", "median ms", "range", "processor"), uses),
        f"{TASKS:,} tasks added in {counted['seconds']:.1f} s; resident {counted['before'] / 1e6:.1f} MB before, "
        f"{counted['added'] / 1e6:.1f} MB after, {counted['used'] / 1e6:.1f} MB when 100 were used, of which "
        f"{counted['held']} are held (`max_loaded` {counted['max_loaded']}), {counted['task'] / 1e6:.2f} MB each",
    )  # fmt: skip
    return "\n\n".join(tables)


def _ms(times: dict[str, Any]) -> tuple[str, str, str]:
    median, least, most, processor = (f"{1000 * times[key]:.2f}" for key in Times._fields)
    return median, f"{least}-{most}", processor


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"
