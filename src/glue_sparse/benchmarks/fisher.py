"""Measures the Fisher by lengths of examples: in batches and one at a time, in turns, and whether both choose alike."""

import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from glue_sparse.analysis.similarity import compare
from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.benchmarks.training import DEVICE, on_device
from glue_sparse.core.batches import example
from glue_sparse.core.masks import Scores, select
from glue_sparse.core.params import body_names
from glue_sparse.core.randomness import seeded
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.scores.fisher import fisher
from glue_sparse.tasks.registry import load_task
from glue_sparse.training.trainer import SparseTrainer

_LENGTHS = (16, 32, 64, 128, 256)
"""Most tokens of random examples, whose lengths lie evenly between half of that and all."""
_TOKENS = 1024
"""Of a batch of random examples."""
_ROUNDS = 3


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
    """MiniLM with so many examples of a task, in the batches that the Fisher takes where 16 are trained on."""
    source = TaskArguments(task=name, data_dir=data_dir, max_eval_samples=16)
    task = load_task(source, ModelArguments(model="minilm"), seed=0)
    settings = TrainingArguments(per_device_train_batch_size=16, use_cpu=DEVICE.type == "cpu", report_to="none")
    trainer = SparseTrainer(
        task.model, settings, method=FixedMask(masks={}), train_dataset=task.train, data_collator=task.collate
    )
    drawn = trainer.sample_batches(count)
    batches = [on_device(dict(batch)) for batch in getattr(drawn, "by_tokens", None) or drawn]
    title = task.title.partition(" (")[0]
    return Sample(title, trainer.network, body_names(trainer.network, task.head), batches)


def random_examples(longest: int, count: int, vocabulary: int) -> list[dict[str, Tensor]]:
    """Batches of random ids with labels of two classes, sorted by length, about `_TOKENS` of them in each."""
    generator, size = seeded(0, "lengths", longest), max(1, _TOKENS // longest)
    lengths = torch.linspace(longest // 2, longest, count).round().long()
    ids = torch.randint(1000, vocabulary, (count, longest), generator=generator)
    mask = (torch.arange(longest) < lengths[:, None]).long()
    labels = torch.randint(0, 2, (count,), generator=generator)
    return [
        on_device({"input_ids": ids[s, :w] * mask[s, :w], "attention_mask": mask[s, :w], "labels": labels[s]})
        for s in (slice(start, start + size) for start in range(0, count, size))
        for w in (int(lengths[s].max()),)
    ]


class Timed(NamedTuple):
    """Seconds of both ways in each round, and the share of the entries chosen by one that the other chooses too."""

    batched: list[float]
    singly: list[float]
    overlap: float

    @property
    def ratios(self) -> list[float]:
        """Speed-up of each round."""
        return [slow / fast for slow, fast in zip(self.singly, self.batched, strict=True)]


def measure(model: nn.Module, names: tuple[str, ...], batches: list[dict[str, Tensor]], rounds: int) -> Timed:
    """Both ways in turns, learning how to do the model's parameters included."""
    seconds: tuple[list[float], list[float]] = [], []
    scores: list[Scores] = []
    for _ in range(rounds):
        scores.clear()
        for way, found in zip((lambda: fisher(model, names, batches, progress=False),
                               lambda: plain_fisher(model, names, batches)), seconds, strict=True):  # fmt: skip
            started = time.perf_counter()
            scores.append(way())
            found.append(time.perf_counter() - started)
    entries = int(0.005 * sum(p.numel() for p in model.parameters()))
    overlap = compare(*(select(score, entries) for score in scores)).overlap
    return Timed(*seconds, 0.0 if overlap is None else overlap)


def _rows(name: str, data_dir: str | None, count: int) -> Iterator[Sample]:
    sources = [("tweets", None), *([("mrpc", data_dir)] if data_dir else [])]
    if name not in dict(sources):
        sources.append((name, data_dir))
    for task, folder in sources:
        found = sample(task, folder, count)
        yield found
    for longest in _LENGTHS:  # on the last task's model
        batches = random_examples(longest, count, found.model.get_parameter(found.names[0]).shape[0])
        yield found._replace(title=f"random ids, {longest // 2} to {longest}", batches=batches)


def compare_fisher(name: str, data_dir: str | None, count: int = 128, rounds: int = _ROUNDS) -> None:
    """Print seconds of both ways, the speed-up and how far they choose the same entries, by lengths."""
    print(f"Fisher of {count} examples, MiniLM, {DEVICE.type}, {torch.get_num_threads()} threads; medians of {rounds} "
          "rounds in turns, smallest and largest speed-up of a round (target >= 5), overlap of the top 0.5 % (target "
          ">= 0.999)")  # fmt: skip
    print("| examples | tokens, mean | of padding | batched s | one at a time s | speed-up | overlap |")
    print("|---|---|---|---|---|---|---|")
    for title, model, names, batches in _rows(name, data_dir, count):
        tokens, places = (sum(int(x) for x in each) for each in (
            [batch["attention_mask"].sum() for batch in batches], [batch["input_ids"].numel() for batch in batches]
        ))  # fmt: skip
        found = measure(model, names, batches, rounds)
        fast, slow, ratios = statistics.median(found.batched), statistics.median(found.singly), found.ratios
        print(f"| {title} | {tokens / count:.0f} | {1 - tokens / places:.0%} | {fast:.2f} | {slow:.2f} | "
              f"{slow / fast:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {found.overlap:.4f} |",
              flush=True)  # fmt: skip
