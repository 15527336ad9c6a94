"""Measures what sparse training of a large decoder takes beside the model: memory and seconds of each phase.

Models have random weights, are built in their type, and lie on one device; each method has a process of its own.
Memory is counted above the model, the peak of a phase with all that earlier phases have left.
"""

import multiprocessing as mp
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from glue_sparse.benchmarks import memory
from glue_sparse.benchmarks.training import DEVICE, on_device, peft_library
from glue_sparse.core.active import attach
from glue_sparse.core.batches import loss_of
from glue_sparse.core.masks import select
from glue_sparse.core.params import body_names, head_names, output_embeddings
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.scores.fisher import fisher
from glue_sparse.scores.scores import magnitude, noise
from glue_sparse.training.half_speed import WORTH_SAYING, slowdown
from glue_sparse.writing.files import json_text
from glue_sparse.writing.tables import markdown

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 2},
    "0.1b": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 18, "num_attention_heads": 16},
}
"""Size -> what a Llama of it is like; words and output layer are tied."""
PHASES = ("build", "score", "select", "attach", "step", "save")
DENSITY = 0.005
NUM_EXAMPLES, NUM_TOKENS, VOCABULARY = 4, 32, 32000
_OURS = ("random", "magnitude", "fish")
METHODS = (*_OURS, "lora", "shira")


@dataclass
class Measured:
    """Of one method: what trains, and each phase's seconds and peak bytes above the model; bytes of what was saved."""

    method: str
    entries: int = 0
    base: int = 0
    trainable: int = 0
    saved: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)


def decoder(size: str, dtype: torch.dtype) -> Any:
    """A random Llama on the measured device, built there in its type."""
    return built(dtype, lambda: LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=True,
                                                             **SIZES[size])))  # fmt: skip


def built(dtype: torch.dtype, make: Callable[[], Any]) -> Any:
    """A random model in training mode, made on the measured device in a type, the same one each time."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with DEVICE:
            return make().train()
    finally:
        torch.set_default_dtype(before)


def batch(rows: int, tokens: int = NUM_TOKENS) -> dict[str, Tensor]:
    """Random tokens, each with the next one as its label."""
    ids = torch.randint(0, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(rows))
    return on_device({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids})


def multiplies(dtype: torch.dtype) -> bool:
    """Whether products in a type take about as long as in float32 here, so that training steps are worth the wait."""
    return DEVICE.type != "cpu" or dtype == torch.float32 or slowdown() <= WORTH_SAYING


def _sparse(model: nn.Module, method: str, phase: Callable[[str], Any]) -> nn.Module:
    """The model with the best entries by a score attached."""
    names = body_names(model, ())
    with phase("score"):
        if method == "fish":
            scores = fisher(model, names, [batch(NUM_EXAMPLES)], progress=False)
        else:
            scores = (noise if method == "random" else magnitude)(model, names)
    budget = int(DENSITY * sum(p.numel() for p in model.parameters()))
    with phase("select"):
        masks = select(scores, budget)
    del scores
    with phase("attach"):
        attach(model, masks)
    return model


def adapted(model: Any, method: str) -> Any:
    """The model with an adapter of peft, `lora` or `shira`, of about as many entries as ours have; a head trains too.

    Adapters are before all linear layers but a head and what gives a language model's words.
    """
    peft, head = peft_library(), {name.rpartition(".")[0] for name in head_names(model)}
    apart = head | {name.rpartition(".")[0] for name in output_embeddings(model)}
    linear = {name: module for name, module in model.named_modules()
              if isinstance(module, nn.Linear) and name not in apart}  # fmt: skip
    budget = DENSITY * sum(p.numel() for p in model.parameters())
    rank = max(1, round(budget / sum(sum(module.weight.shape) for module in linear.values())))
    told = {"r": rank, "target_modules": sorted({name.rpartition(".")[2] for name in linear}),
            "modules_to_save": sorted(head) or None}  # fmt: skip
    return peft.get_peft_model(model, peft.LoraConfig(**told) if method == "lora" else peft.ShiraConfig(**told))


def _steps(model: Any, count: int) -> float:
    """Median seconds of a step, of one example, after one that does not count."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, one, times = torch.optim.AdamW(trained, lr=1e-4), batch(1), []
    for _ in range(1 + count):
        started = time.perf_counter()
        loss_of(model(**one)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def measured(method: str, size: str, dtype: torch.dtype, steps: int) -> Measured:
    """One method in this process, which has measured nothing else; no step where `steps` is 0."""
    found = Measured(method)
    empty = memory.now(DEVICE)

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        with memory.used(DEVICE) as used:
            yield
        found.seconds[name] = used.seconds
        found.peak[name], found.after[name] = used.peak - held, used.after - held

    held = empty
    with phase("build"):
        plain = decoder(size, dtype)
    found.entries = sum(p.numel() for p in plain.parameters())
    found.base = sum(p.nbytes for p in plain.parameters())
    held = memory.now(DEVICE)
    if method in _OURS:
        model: Any = _sparse(plain, method, phase)
    else:
        with phase("attach"):
            model = adapted(plain, method)
    found.trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if steps:
        with phase("step"):
            seconds = _steps(model, steps)
        found.seconds["step"] = seconds
    with tempfile.TemporaryDirectory() as folder:
        with phase("save"):
            SparseDiff.from_model(model).save_pretrained(folder) if method in _OURS else model.save_pretrained(folder)
        found.saved = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    return found


def _work(pipe: Connection, *told: Any) -> None:
    pipe.send(measured(*told))


def _apart(*told: Any) -> Measured:
    """`measured` in a new process; ValueError where that ends without an answer, as for want of memory."""
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_work, args=(theirs, *told), daemon=True)
    worker.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        worker.join()
        raise ValueError(f"the process of {told[0]} ended with status {worker.exitcode}: choose a smaller "
                         "`size`") from None  # fmt: skip


def _cells(one: Measured) -> Iterator[str]:
    yield from (one.method, f"{one.trainable:,}")
    for name in PHASES[1:]:
        yield f"{one.seconds[name]:.2f} s, {100 * one.peak[name] / one.base:.1f} %" if name in one.seconds else "-"
    yield f"{one.saved / 1e6:.1f}"


def run(size: str, dtype: str, steps: int, out: str | None) -> None:
    """Print the table, and write all numbers as JSON; ValueError where memory cannot be measured, or without peft."""
    memory.check(DEVICE)
    peft_library()
    kind = getattr(torch, dtype)
    fast = multiplies(kind)
    methods = [method for method in METHODS if fast or method != "fish"]
    found = [_apart(method, size, kind, steps if fast else 0) for method in methods]
    versions = {"python": platform.python_version(), "torch": torch.__version__,
                "transformers": transformers.__version__, "peft": peft_library().__version__}  # fmt: skip
    base = found[0].base
    print(f"{found[0].entries:,} weights in {dtype} ({base / 1e9:.2f} GB) on {DEVICE.type}, "
          f"{torch.get_num_threads()} threads; seconds, and most memory above the model in % of it\n")  # fmt: skip
    if not fast:
        print("no steps and no Fisher: products in this type are slow here\n")
    print(markdown(("method", "trainable", *PHASES[1:], "saved MB"), [tuple(_cells(one)) for one in found]))
    print("\n" + ", ".join(f"{name} {version}" for name, version in versions.items()))
    if out:
        facts = {"size": size, "dtype": dtype, "device": DEVICE.type, "threads": torch.get_num_threads(),
                 "steps": steps, "density": DENSITY, "versions": versions,
                 "methods": [asdict(one) for one in found]}  # fmt: skip
        Path(out).write_text(json_text(facts, out), encoding="utf-8")
