"""Measures training: full, FISH and random masks, peft's LoRA and SHiRA, and gates, in processes that take turns."""

import multiprocessing as mp
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from glue_sparse.benchmarks.machine import DEVICE, wait
from glue_sparse.core.active import active_tensors, attach
from glue_sparse.core.budgets import total
from glue_sparse.core.masks import select
from glue_sparse.core.parametrization import held_tensors
from glue_sparse.core.params import body_names, head_names
from glue_sparse.methods.gates.diff_gates import DiffGates
from glue_sparse.methods.gates.fused import FIRST_STEP
from glue_sparse.models.loading import load_classifier
from glue_sparse.models.tokenizers import load_tokenizer
from glue_sparse.scores.fisher import fisher
from glue_sparse.scores.scores import noise
from glue_sparse.writing.extras import needed
from glue_sparse.writing.tables import markdown

HEADER = (
    "method", "trainable", "state bytes", "kept MiB", "peak MiB", "resident MiB", "median ms", "range ms",
    "step / full",
)  # fmt: skip


LAYERS = ["query", "key", "value", "dense"]


GATES = {"gates": DiffGates(groups="none"), "structured": DiffGates(groups="tensor", penalty=1e-8)}
"""Stage 1 of diff pruning; the structured penalty is one that does not shut the groups within the measurement."""


def batch_of(rows: int, tokens: int) -> dict[str, Tensor]:
    """A fixed batch of random tokens without padding."""
    generator = torch.Generator().manual_seed(0)
    size = len(load_tokenizer("minilm"))
    ids = torch.randint(1000, size, (rows, tokens), generator=generator)
    labels = torch.randint(0, 2, (rows,), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def peft_library() -> Any:
    """The module peft; ValueError where it is not installed."""
    return needed("peft", "a comparison with peft", "benchmark")


def masked(model: nn.Module, score: Callable, batch: dict[str, Tensor]) -> nn.Module:
    """The model with the best 0.5 % by a score of one batch attached."""
    head = head_names(model)
    names = body_names(model, head)
    sizes = [p.numel() for p in model.parameters()]
    budget = total(0.005, sum(sizes), sum(model.get_parameter(name).numel() for name in head))
    attach(model, select(score(model, names, [batch]), budget))
    return model


def build(kind: str) -> nn.Module:
    """One contender of MiniLM, on its device, in training mode."""
    torch.manual_seed(0)
    model: Any = load_classifier("minilm", 2, ("a", "b")).to(DEVICE)  # pyright: ignore[reportArgumentType]
    if kind == "lora":
        peft = peft_library()
        config = peft.LoraConfig(r=8, target_modules=LAYERS, modules_to_save=["classifier"])
        model = peft.get_peft_model(model, config)
    elif kind == "shira":
        peft = peft_library()
        config = peft.ShiraConfig(r=3, target_modules=LAYERS, modules_to_save=["classifier"])
        model = peft.get_peft_model(model, config)
    else:
        model = prepared(model, kind, on_device(batch_of(16, 128)))
    return model.to(DEVICE).train()


def prepared(model: nn.Module, kind: str, batch: dict[str, Tensor]) -> nn.Module:
    """Any model as a method of ours trains it: `fish` by one batch, `random`, a kind of `GATES`, or `full` as it is."""
    if kind == "fish":
        return masked(model, lambda *inputs: fisher(*inputs, progress=False), batch)
    if kind == "random":
        return masked(model, lambda *inputs: {n: s.to(DEVICE) for n, s in noise(*inputs).items()}, batch)
    if kind in GATES:
        gates = GATES[kind]
        gates.attach(model, gates.prepare(model, head_names(model), lambda count: ()))
        gates.draw.step = FIRST_STEP  # a run that has gone on for a while
    return model


class Counts(NamedTuple):
    """What one contender holds; bytes, except for the first two."""

    trainable: int
    compact: int
    state: int
    kept: int
    peak: int
    bare: int
    """Peak above what is held between steps, in a step of a single token: of the method, without activations."""
    resident: int


def on_device(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch on the measured device."""
    return {name: tensor.to(DEVICE) for name, tensor in batch.items()}


def tensor_peak(step: Callable[[], None], held: int) -> int:
    """Most bytes that tensors take during one step; `held` is what they take before it."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events: list[Any] = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return held + most


def resident_peak() -> int:
    """Most bytes this process ever had in memory, with the interpreter and what malloc keeps for later."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def stepper(
    model: Any, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], bf16: bool = False, kind: str = ""
) -> Callable[..., None]:
    """A training step with clipping, waited for, on this batch or one that it is given.

    Args:
        kind: one of `GATES` where the loss has a penalty.
    """
    trained = [p for p in model.parameters() if p.requires_grad]

    def step(batch: dict[str, Tensor] = batch) -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        if kind in GATES and (penalty := GATES[kind].penalty(model)) is not None:
            loss = loss + penalty.float()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        wait(DEVICE)

    return step


def moments_of(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state beside what is one number."""
    return sum(t.nbytes for s in optimizer.state.values() for t in s.values() if t.dim())


def held_by(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of a model's tensors and of an optimizer's state between two steps."""
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers())) + moments_of(optimizer)


def work(kind: str, bf16: bool, pipe: Connection) -> None:
    """A contender's process: one training step for each message, then its counts."""
    model, batch = build(kind), on_device(batch_of(16, 128))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    step = stepper(model, optimizer, batch, bf16, kind)

    while pipe.recv():
        started = time.perf_counter()
        step()
        pipe.send(time.perf_counter() - started)
    resident = resident_peak()
    moments = moments_of(optimizer)
    held = held_by(model, optimizer)
    compact = sum(entries.values.numel() for _, entries in active_tensors(model))
    apart = sum(p.nbytes for _, part in held_tensors(model) for p in part.parameters())
    pipe.send(
        Counts(
            trainable=sum(p.numel() for p in trained),
            compact=compact,
            state=2 * sum(p.nbytes for p in trained) + moments,  # parameters, gradients, Adam's moments
            kept=apart + moments,
            peak=tensor_peak(step, held),
            bare=tensor_peak(lambda: step(on_device(batch_of(1, 1))), held) - held,
            resident=resident,
        )
    )


def measure(kinds: Sequence[str], steps: int, bf16: bool) -> tuple[dict[str, list[float]], dict[str, Counts]]:
    """Step times in seconds and counts of each contender."""
    context, pipes, workers = mp.get_context("spawn"), {}, []
    for kind in kinds:
        pipes[kind], end = context.Pipe()
        workers.append(context.Process(target=work, args=(kind, bf16, end), daemon=True))
        workers[-1].start()
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for step in range(steps + 2):
        for kind in kinds:
            pipes[kind].send(True)
            seconds = pipes[kind].recv()
            if step >= 2:  # warm-up
                times[kind].append(seconds)
    counts: dict[str, Counts] = {}
    for kind in kinds:
        pipes[kind].send(False)
        counts[kind] = pipes[kind].recv()
    return times, counts


def train(steps: int, bf16: bool) -> None:
    """Print the training table and the ratios; ValueError where peft is not installed."""
    peft_library()  # here, not in the processes that measure
    times, counts = measure(("full", "fish", "random", "lora", "shira", *GATES), steps, bf16)
    precision = "bfloat16 autocast" if bf16 else "float32"
    print(f"training on {DEVICE.type} ({torch.get_num_threads()} threads), {precision}, {steps} steps each\n")
    lines = [
        (kind, f"{c.trainable:,}", f"{c.state:,}", f"{c.kept / 2**20:,.1f}", f"{c.peak / 2**20:,.0f}",
         f"{c.resident / 2**20:,.0f}", f"{1000 * statistics.median(times[kind]):.0f}",
         f"{1000 * min(times[kind]):.0f}-{1000 * max(times[kind]):.0f}", ratio(times[kind], times["full"]))
        for kind, c in counts.items()
    ]  # fmt: skip
    print(markdown(HEADER, lines))
    _print_goals(times, counts)


def ratio(times: Sequence[float], others: Sequence[float]) -> str:
    """Median and quartiles of the ratios of steps that were taken one after the other."""
    found = [one / other for one, other in zip(times, others, strict=True)]
    if len(found) < 2:
        return f"{found[0]:.2f}"
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def _print_goals(times: dict[str, list[float]], counts: dict[str, Counts]) -> None:
    fish, others = counts["fish"], [counts[kind] for kind in ("full", "lora", "shira")]
    per_entry = (fish.state - 16 * (fish.trainable - fish.compact)) / fish.compact
    print(f"\nfish: {per_entry:.1f} bytes of state per active entry (target <= 16)")
    for other, goal in (("full", "0.78"), ("lora", "0.90"), ("shira", "1.00")):
        print(f"fish / {other} step: {ratio(times['fish'], times[other])} (target <= {goal})")
    print(f"fish / lora peak: {fish.peak / counts['lora'].peak:.3f} (target <= 0.85)")
    print(f"fish peak / least of full, lora, shira: {fish.peak / min(c.peak for c in others):.3f} (target < 1)")
    print(f"the same of resident memory: {fish.resident / min(c.resident for c in others):.2f}")
    gated = (counts["gates"].trainable - 770) / 2  # the head of two labels has no gates
    print(f"gates: {counts['gates'].kept / 4 / gated:.2f} float32 numbers kept per gated weight (target <= 6)")
    for kind in GATES:
        extra = counts[kind].bare / 4 / gated
        print(f"{kind}: {extra:.2f} more at the peak of a step of one token, which has no activations (target <= 4)")
        print(f"{kind} / full step: {ratio(times[kind], times['full'])} (target <= 1.40)")
    print()
