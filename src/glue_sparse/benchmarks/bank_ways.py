"""Ways to go from one task to another with one model in memory: the bank, diffs by hand, peft, and whole models."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from glue_sparse.banks.bank import TaskBank
from glue_sparse.benchmarks.machine import wait
from glue_sparse.benchmarks.training import DEVICE, LAYERS, peft_library
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.models.sources import quiet
from glue_sparse.models.strangers import loaded

_CACHES = 1 << 24
"""Numbers that no cache holds all of."""


class Way(NamedTuple):
    """One way; `before` is not timed.

    Attributes:
        model: as forward passes see it after a swap; none where each swap makes one.
    """

    name: str
    before: Callable[[], object]
    swap: Callable[[], object]
    model: Any = None


class Taken(NamedTuple):
    """Seconds of one call: by the clock, and of processors, which others at work on the machine change less."""

    clock: float
    processor: float


class Times(NamedTuple):
    """Seconds: the median, the fastest and the slowest by the clock, and the median of processor time."""

    median: float
    least: float
    most: float
    processor: float

    @classmethod
    def of(cls, found: Sequence[Taken]) -> "Times":
        clock = [one.clock for one in found]
        return cls(median(clock), min(clock), max(clock), median(one.processor for one in found))


def timed(call: Callable[[], object]) -> Taken:
    """What one call takes."""
    wait(DEVICE)
    clock, processor = time.perf_counter(), time.process_time()
    call()
    wait(DEVICE)
    return Taken(time.perf_counter() - clock, time.process_time() - processor)


def alternating(ways: Sequence[Way], rounds: int, warm: int = 1) -> list[Times]:
    """Each way once a round, in turns, with caches full of something else, as a forward pass leaves them.

    Args:
        warm: rounds that do not count.
    """
    found: list[list[Taken]] = [[] for _ in ways]
    other = torch.zeros(_CACHES)
    for number in range(warm + rounds):
        for index in range(len(ways)):
            place = (index + number) % len(ways)
            ways[place].before()
            other.add_(1)
            took = timed(ways[place].swap)
            found[place] += [took] if number >= warm else []
    return [Times.of(one) for one in found]


def of_bank(bank: TaskBank, pair: tuple[str, str], kind: str = "") -> list[Way]:
    """From one task to another, and from a task to the base."""
    first, second = pair
    names = [f"{kind}TaskBank, task to task", f"{kind}TaskBank, task to base"]
    return [Way(names[0], lambda: bank.use(first), lambda: bank.use(second), bank.model),
            Way(names[1], lambda: bank.use(first), lambda: bank.use(None), bank.model)]  # fmt: skip


def of_diffs(model: nn.Module, diffs: tuple[SparseDiff, SparseDiff]) -> Way:
    """`remove` of one and `apply` of the other; the diffs are in memory and were checked."""
    applied: list[SparseDiff] = []

    def swap() -> None:
        if applied:
            applied.pop().remove(model)
        now = next(order)
        now.apply(model, check=False)
        applied.append(now)

    order = cycle(diffs)
    swap()
    return Way("SparseDiff.remove and apply", nothing, swap, model)


def of_states(model: nn.Module, diffs: tuple[SparseDiff, SparseDiff]) -> Way:
    """`load_state_dict` of a whole model that is in memory."""
    states: list[dict[str, Tensor]] = []
    for diff in diffs:
        with diff.applied(model, check=False):
            states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    order = cycle(states)
    return Way("load_state_dict from memory", nothing, lambda: model.load_state_dict(next(order)), model)


def of_folder(folder: Path) -> Way:
    """`from_pretrained` of a model's folder, which the system has in memory after the first time."""

    def load() -> None:
        with quiet():
            loaded(AutoModelForSequenceClassification, str(folder), local_files_only=True).to(DEVICE)

    return Way("from_pretrained from disk", nothing, load)


def of_peft(build: Callable[[], nn.Module]) -> Iterator[Way]:
    """Two adapters of LoRA, hot and merged, and of SHiRA; they do not move the head, for which peft has wrappers."""
    peft = peft_library()
    for name, config in (("LoRA r=8", peft.LoraConfig(r=8, target_modules=LAYERS, init_lora_weights=False)),
                         ("SHiRA r=3", peft.ShiraConfig(r=3, target_modules=LAYERS, init_weights=False))):  # fmt: skip
        model = peft.get_peft_model(build(), config, "first")
        model.add_adapter("second", config)
        yield Way(f"peft {name}, set_adapter", nothing, _hot(model), model)
    model = peft.get_peft_model(build(), peft.LoraConfig(r=8, target_modules=LAYERS, init_lora_weights=False), "first")
    model.add_adapter("second", model.peft_config["first"])
    model.merge_adapter()
    yield Way("peft LoRA r=8, unmerge and merge", nothing, _merged(model), model)


def _hot(model: Any) -> Callable[[], None]:
    names = cycle(("second", "first"))
    return lambda: model.set_adapter(next(names))


def _merged(model: Any) -> Callable[[], None]:
    names = cycle(("second", "first"))

    def swap() -> None:
        model.unmerge_adapter()
        model.set_adapter(next(names))
        model.merge_adapter()

    return swap


def forwards(models: Mapping[str, Any], batch: dict[str, Tensor], rounds: int) -> dict[str, float]:
    """Name of each model -> median seconds of a forward pass, in turns."""

    def passing(model: Any) -> Callable[[], object]:
        return lambda: model(**batch)

    ways = [Way(name, nothing, passing(model.eval()), model) for name, model in models.items()]
    with torch.no_grad():
        return {way.name: found.median for way, found in zip(ways, alternating(ways, rounds), strict=True)}


def nothing() -> None:
    """Nothing to get ready."""
