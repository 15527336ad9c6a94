"""What a trained diff costs on the device: applying it, swapping tasks, and decoding with it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from glue_sparse.banks.mixed import MixedForward, loop_forward
from glue_sparse.banks.mixed_choice import MixedOrLoop
from glue_sparse.benchmarks import large
from glue_sparse.benchmarks.bank_mixed import Rows, difference, random_diff, swapping
from glue_sparse.benchmarks.bank_swaps import Case, diff_of, drawn, swaps_of
from glue_sparse.benchmarks.bank_ways import Times, Way, alternating, nothing, of_diffs
from glue_sparse.benchmarks.device.part import Part, Table, Told
from glue_sparse.benchmarks.limits import paths
from glue_sparse.benchmarks.limits.ceilings import copy_rate
from glue_sparse.benchmarks.limits.costs import Size
from glue_sparse.benchmarks.training import DEVICE, prepared
from glue_sparse.diffs.diff import SparseDiff

BASE = Size(12, 768, 12, 3072, 30522, 16, 128)
MOST_MIXED = 1e-3
"""Part of a row's largest logit by which two ways may differ in float32."""
_TOKENS = 32
"""Tokens that are generated."""


def swaps(told: Told) -> Part:
    """One task to another, to the base, and `SparseDiff.remove` and `apply`, with random masks of 0.5 %."""
    title, size = _size(told)
    model: Any = paths.bert(size).eval()
    first, second = (diff_of(model, drawn(model, seed, 1), seed) for seed in (0, 1))
    speed = copy_rate(DEVICE)
    (facts,) = swaps_of([Case(title, "random", (first, second))], model, told.steps, speed)
    (by_hand,) = alternating([of_diffs(paths.bert(size).eval(), (first, second))], told.steps)
    to_task, to_base = (Times(**facts[key]) for key in ("to_task", "to_base"))
    rows = [("TaskBank, task to task", to_task), ("TaskBank, task to base", to_base),
            ("SparseDiff.remove and apply", by_hand)]  # fmt: skip
    floor = facts["floor"]
    lines = [(name, *ms(times), f"{times.median / floor:.1f}") for name, times in rows]
    told_of = (f"{title}, {facts['entries']:,} entries a task; floor {1000 * floor:.3f} ms, each cache line that both "
               f"tasks touch read and written once at {speed / 1e9:.1f} GB/s")  # fmt: skip
    facts["by_hand"] = by_hand._asdict()
    return Part([Table(told_of, ("swap", "median ms", "range ms", "median / floor"), lines)], facts)


def mixed(told: Told) -> Part:
    """Rows of two tasks in one batch, by mixed layers and task by task; both must give the same."""
    title, size = _size(told)
    forward = MixedForward(paths.bert(size).eval())
    tasks = {name: forward.prepare(random_diff(forward.model.cpu(), seed)) for seed, name in enumerate(("a", "b"))}
    forward = MixedForward(forward.model.to(DEVICE))
    batch = {name: value for name, value in paths.batch_of(size).items() if name != "labels"}
    names, use = [["a", "b"][row % 2] for row in range(size.rows)], swapping(forward, tasks)
    last: dict[str, Rows] = {}
    choice = MixedOrLoop(forward, use, tasks.__getitem__)
    calls: dict[str, Callable[[], Rows]] = {
        "mixed layers": lambda: forward.forward(batch, names, tasks),
        "task by task": lambda: loop_forward(use, forward.model, batch, names),
        "the faster one, found by trying": lambda: choice.forward(batch, names),
    }

    def call(name: str) -> Callable[[], None]:
        return lambda: last.update({name: calls[name]()})

    found = alternating([Way(name, nothing, call(name)) for name in calls], max(told.steps, 3))
    off = difference(last["mixed layers"], last["task by task"])
    lines = [(name, *ms(times)) for name, times in zip(calls, found, strict=True)]
    told_of = f"{title}, {size.rows} rows of 2 tasks; both ways differ by {off:.0e} of a row's largest logit"
    facts = {"difference": off, "seconds": {name: one._asdict() for name, one in zip(calls, found, strict=True)}}
    wrong = f"mixed layers are off by {off:.0e} of a row's largest logit" if not off <= MOST_MIXED else ""
    return Part([Table(told_of, ("way", "median ms", "range ms"), lines)], facts, wrong)


def _size(told: Told) -> tuple[str, Size]:
    return ("tiny BERT", paths.SMALL) if told.quick else ("BERT-base", BASE)


def decoding(told: Told) -> Part:
    """Greedy decoding by the plain model, with active entries attached, with a diff applied, and with LoRA."""
    name = "tiny" if told.quick else "1b" if DEVICE.type == "cuda" else "0.1b"
    dtype = torch.float32 if told.quick or not large.multiplies(torch.bfloat16) else torch.bfloat16
    tokens, rounds = (4 if told.quick else _TOKENS), max(1, told.steps // 4)
    lines, facts = [], {"model": name, "dtype": str(dtype)[6:], "tokens": tokens, "rounds": rounds, "rows": {}}
    models = dict(_models(name, dtype))
    for rows in (1, 8):
        ways = [Way(title, nothing, _generating(model, rows, tokens), model) for title, model in models.items()]
        found = dict(zip(models, alternating(ways, rounds), strict=True))
        facts["rows"][rows] = {title: times._asdict() for title, times in found.items()}
        plain = found["plain"].median
        lines += [(str(rows), title, *ms(times, tokens), f"{times.median / plain:.2f}")
                  for title, times in found.items()]  # fmt: skip
    title = f"decoder of {name}, {facts['dtype']}, {tokens} tokens after a prompt of {large.NUM_TOKENS}"
    header = ("rows", "model", "median ms a token", "range ms", "to plain")
    return Part([Table(title, header, lines)], facts)


def _models(name: str, dtype: torch.dtype) -> Iterator[tuple[str, Any]]:
    yield "plain", large.decoder(name, dtype).eval()
    attached = prepared(large.decoder(name, dtype), "random", large.batch(1)).eval()
    yield "active entries, attached", attached
    diff = SparseDiff.from_model(attached)
    applied = large.decoder(name, dtype).eval()
    diff.apply(applied, check=False)
    yield "diff, applied", applied
    yield "LoRA, not merged", large.adapted(large.decoder(name, dtype), "lora").eval()


def _generating(model: Any, rows: int, tokens: int) -> Any:
    prompt = large.batch(rows)

    def generate() -> None:
        with torch.no_grad():
            model.generate(input_ids=prompt["input_ids"], attention_mask=prompt["attention_mask"], do_sample=False,
                           max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0)  # fmt: skip

    return generate


def ms(times: Times, per: int = 1) -> tuple[str, str]:
    """Median and range in milliseconds of one of `per`."""
    median, least, most = (1000 * one / per for one in (times.median, times.least, times.most))
    return f"{median:.3f}", f"{least:.3f}-{most:.3f}"
