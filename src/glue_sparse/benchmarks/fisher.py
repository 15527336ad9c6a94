"""Measures the Fisher: vectorised and one example at a time, in turns, and whether both choose alike."""

import statistics
import time
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from glue_sparse.analysis.similarity import compare
from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.benchmarks.training import DEVICE, on_device
from glue_sparse.core.batches import example
from glue_sparse.core.masks import select
from glue_sparse.core.params import body_names
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.scores.fisher import fisher
from glue_sparse.tasks.registry import load_task
from glue_sparse.training.trainer import SparseTrainer


def plain_fisher(model: nn.Module, names: tuple[str, ...], batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The definition: one example, one backward pass, one square; each at its own length."""
    model.eval()
    totals = {name: torch.zeros_like(model.get_parameter(name)) for name in names}
    for batch in batches:
        for i in range(len(batch["labels"])):
            one = example(batch, i)
            length = int(one["attention_mask"].sum())
            model.zero_grad()
            model(**{k: v[:, :length] if v.dim() == 2 else v for k, v in one.items()}).loss.backward()
            for name in names:
                gradient = model.get_parameter(name).grad
                if gradient is not None:
                    totals[name] += gradient**2
    model.zero_grad()
    return totals


class Sample(NamedTuple):
    """A model, the names of its body's tensors, and batches of a task's examples, on the device."""

    title: str
    model: nn.Module
    names: tuple[str, ...]
    batches: list[dict[str, Tensor]]


def sample(name: str, data_dir: str | None, count: int) -> Sample:
    """MiniLM with so many examples of a task, in batches of 16."""
    source = TaskArguments(task=name, data_dir=data_dir, max_eval_samples=16)
    task = load_task(source, ModelArguments(model="minilm"), seed=0)
    settings = TrainingArguments(per_device_train_batch_size=16, use_cpu=DEVICE.type == "cpu", report_to="none")
    trainer = SparseTrainer(
        task.model, settings, method=FixedMask(masks={}), train_dataset=task.train, data_collator=task.collate
    )
    batches = [on_device(dict(batch)) for batch in trainer.sample_batches(count)]
    title = task.title.partition(" (")[0]
    return Sample(title, trainer.network, body_names(trainer.network, task.head), batches)


def compare_fisher(name: str, data_dir: str | None) -> None:
    """Print the times of both ways and how far they choose the same entries."""
    title, model, names, batches = sample(name, data_dir, 256)
    times: dict[str, list[float]] = {"vectorised": [], "one at a time": []}
    scores = {}
    for _ in range(3):
        for kind, way in (("vectorised", lambda: fisher(model, names, batches, progress=False)),
                          ("one at a time", lambda: plain_fisher(model, names, batches))):  # fmt: skip
            started = time.perf_counter()
            scores[kind] = way()
            times[kind].append(time.perf_counter() - started)
    fast, slow = (statistics.median(seconds) for seconds in times.values())
    masks = [select(s, int(0.005 * sum(p.numel() for p in model.parameters()))) for s in scores.values()]
    print(f"Fisher of 256 examples of {title}, {DEVICE.type}: vectorised {fast:.1f} s, "
          f"one at a time {slow:.1f} s")  # fmt: skip
    print(f"speed-up {slow / fast:.2f} (target >= 2)")
    print(f"overlap of the top 0.5 %: {compare(*masks).overlap:.4f} (target >= 0.999)")
