"""What a trained diff costs on the device: applying it, swapping tasks, and decoding with it."""

from collections.abc import Iterator
from typing import Any

import torch

from glue_sparse.benchmarks import large
from glue_sparse.benchmarks.bank_swaps import Case, diff_of, drawn, swaps_of
from glue_sparse.benchmarks.bank_ways import Times, Way, alternating, nothing, of_diffs
from glue_sparse.benchmarks.device.part import Part, Table, Told
from glue_sparse.benchmarks.limits import paths
from glue_sparse.benchmarks.limits.ceilings import copy_rate
from glue_sparse.benchmarks.limits.costs import Size
from glue_sparse.benchmarks.training import DEVICE, prepared
from glue_sparse.diffs.diff import SparseDiff

BASE = Size(12, 768, 12, 3072, 30522, 16, 128)
_TOKENS = 32
"""Tokens that are generated."""


def swaps(told: Told) -> Part:
    """One task to another, to the base, and `SparseDiff.remove` and `apply`, with random masks of 0.5 %."""
    title, size = ("tiny BERT", paths.SMALL) if told.quick else ("BERT-base", BASE)
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
