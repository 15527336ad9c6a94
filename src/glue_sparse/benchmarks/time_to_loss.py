"""Measures seconds to a fixed loss in pre-training a small BERT: dense, smaller and dense, and of tiles that move.

Steps to the loss come from a run of each network, which depends on the seed alone. Seconds per step come from the same
runs, whose steps take turns in one process: whatever else the machine does slows all of them down alike. Their product
is the time that each would have taken alone.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.benchmarks.tiles import sparse
from glue_sparse.core.randomness import new_weights, seeded
from glue_sparse.costs.bert_flops import encoder_entries, encoder_flops
from glue_sparse.methods.moving.plain_loop import SparseOptimizer
from glue_sparse.methods.moving.rules import DYNSPARSE
from glue_sparse.models.bert_family import config_of
from glue_sparse.models.bert_pretraining import BertForPreTraining
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.pretraining import task as pretraining

SIMULATED = "simulated text"


@dataclass(frozen=True)
class Setting:
    """Sizes of the networks and of their runs; the rates are the best of those tried for each kind of network.

    Attributes:
        layers, hidden: of the large networks; a head has 64 units.
        length, batch: tokens of a pair, pairs of a step.
        target: the loss to reach, in nats per masked token.
        most_steps: after which a run that has not reached it ends.
        check_every: steps between looks at the validation loss.
        scored: validation pairs.
        rounds: steps that all runs take at least, for the seconds per step.
        interval: steps between moves of tiles.
        rate, small_rate, sparse_rate: learning rates of AdamW, constant after `warmup` steps.
    """

    layers: int = 2
    hidden: int = 256
    length: int = 32
    batch: int = 16
    vocab_size: int = 256
    densities: tuple[float, ...] = (0.1,)
    block_sizes: tuple[int, ...] = (16, 32, 64)
    target: float = 4.0
    most_steps: int = 2500
    check_every: int = 25
    scored: int = 256
    rounds: int = 200
    interval: int = 100
    warmup: int = 100
    rate: float = 5e-4
    small_rate: float = 1e-3
    sparse_rate: float = 1e-3


FULL = Setting()
QUICK = replace(
    FULL, hidden=64, densities=(0.25,), block_sizes=(16, 32), target=5.2, most_steps=60, check_every=20, scored=32,
    rounds=20, interval=20, warmup=10,
)  # fmt: skip
"""A look at whether everything runs, in seconds; its target is what every network reaches within a few steps."""


@dataclass(frozen=True)
class Spec:
    """One network: its width, and for a sparse one density and side of its tiles."""

    name: str
    hidden: int
    rate: float
    density: float = 1.0
    block_size: int = 1


@dataclass
class Contender:
    """A network in training, and what was seen of it."""

    spec: Spec
    model: nn.Module
    optimizer: Any
    seconds: list[float] = field(default_factory=list)
    losses: dict[int, float] = field(default_factory=dict)
    """Step -> validation loss, in nats per masked token."""
    reached: int | None = None
    """Steps to the target."""


def measure(device: torch.device, quick: bool, data_dir: str | None = None) -> dict[str, Any]:
    """Train all networks in turns to the target; returns the setting, the text and a row for each network.

    Args:
        device: where to train.
        quick: a tiny network for a few steps instead, to see that everything runs.
        data_dir: folder of text for `masked_lm`; by default a simulated text, whose losses say nothing of language.
    Raises:
        ValueError: no such text.
    """
    setting = QUICK if quick else FULL
    task, text = _task(setting, data_dir)
    runs = [contender(spec, setting, len(task.tokenizer), device) for spec in specs(setting)]  # pyright: ignore
    train(runs, setting, task, device)
    return {"device": device.type, "threads": torch.get_num_threads(), "text": text, "setting": asdict(setting),
            "networks": [row(run, runs[0], setting) for run in runs]}  # fmt: skip


def specs(setting: Setting) -> list[Spec]:
    """The dense network first, then for each density a dense one of about the same operations, and tiles by size."""
    found = [Spec("dense", setting.hidden, setting.rate)]
    for density in setting.densities:
        width = narrower(setting, density)
        found.append(Spec(f"dense, {width} wide", width, setting.small_rate))
        found += [
            Spec(f"tiles of {size}, density {density}", setting.hidden, setting.sparse_rate, density, size)
            for size in setting.block_sizes
        ]
    return found


def narrower(setting: Setting, density: float) -> int:
    """The width, a multiple of 8, of the dense encoder whose operations come nearest to those of the sparse one."""
    wanted = encoder_flops(setting.layers, setting.hidden, density, setting.length)
    widths = range(8, setting.hidden + 1, 8)
    return min(widths, key=lambda width: abs(encoder_flops(setting.layers, width, 1.0, setting.length) - wanted))


def contender(spec: Spec, setting: Setting, vocab_size: int, device: torch.device) -> Contender:
    """A network from random weights of one seed, and its optimizer."""
    heads = max(1, spec.hidden // 64)
    config = config_of(
        "bert_tiny", hidden_size=spec.hidden, num_hidden_layers=setting.layers, intermediate_size=4 * spec.hidden,
        num_attention_heads=heads if spec.hidden % heads == 0 else 1, vocab_size=vocab_size,
        max_position_embeddings=setting.length,
    )  # fmt: skip
    with new_weights(0, f"{spec.hidden}"):
        model: Any = BertForPreTraining(config).train()
    if spec.density < 1:
        encoder = [name for name, weight in model.named_parameters() if ".layer." in name and weight.dim() == 2]
        sparse(model, spec.block_size, 1 - spec.density, encoder)
    model.to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer: Any = torch.optim.AdamW(trained, lr=spec.rate, weight_decay=0.0, fused=True)
    if spec.density < 1:
        schedule = replace(DYNSPARSE.schedule, intervals=setting.most_steps // setting.interval)
        rule = replace(DYNSPARSE, schedule=schedule, block_size=spec.block_size)
        optimizer = SparseOptimizer(optimizer, model, rule, num_steps=setting.most_steps)
    return Contender(spec, model, optimizer)


def train(runs: Sequence[Contender], setting: Setting, task: Task, device: torch.device) -> None:
    """A step of each in turns on the same batch, until it has reached the target and taken its part in the rounds."""
    collate: Any = task.collate
    scored = [task.evals["validation"][index] for index in range(setting.scored)]  # pyright: ignore
    validation, batches = _on(device, collate(scored)), _batches(task, setting, device)
    for step in range(setting.most_steps):
        going = [run for run in runs if run.reached is None or step < setting.rounds]
        if not going:
            return
        batch = next(batches)
        for run in going:
            run.seconds.append(_seconds_of_step(run, batch, min(1.0, (step + 1) / setting.warmup), device))
        if (step + 1) % setting.check_every == 0:
            for run in going:
                run.losses[step + 1] = loss = validation_loss(run.model, validation)
                if loss <= setting.target and run.reached is None:
                    run.reached = step + 1


def _seconds_of_step(run: Contender, batch: dict[str, Tensor], share: float, device: torch.device) -> float:
    for group in run.optimizer.param_groups:
        group["lr"] = share * run.spec.rate
    _wait(device)
    started = time.perf_counter()
    run.model(**batch).loss.backward()
    run.optimizer.step()
    run.optimizer.zero_grad()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def validation_loss(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """Nats per masked token."""
    sums = model(**batch).statistics[:, :2].double().sum(0)
    return float(sums[0] / sums[1])


def row(run: Contender, dense: Contender, setting: Setting) -> dict[str, Any]:
    """What the table says of a network; the first round is for warming up.

    `per_step` is the median of steps, and what moving tiles takes beyond that, by how often it happens. `to_dense` are
    the quartiles of the ratio to the dense network's step of the same round.
    """
    rounds = range(1, min(len(run.seconds), len(dense.seconds)))
    ratios = [run.seconds[i] / dense.seconds[i] for i in rounds if not _moves(i, setting)]
    usual = _usual(run, setting)
    moving = [seconds - usual for i, seconds in enumerate(run.seconds) if _moves(i, setting)]
    extra = max(0.0, statistics.median(moving)) / setting.interval if moving and run.spec.density < 1 else 0.0
    quartiles = statistics.quantiles(ratios, n=4)
    per_step = quartiles[1] * _usual(dense, setting) + extra
    return {
        **asdict(run.spec),
        "weights": round(run.spec.density * encoder_entries(setting.layers, run.spec.hidden)),
        "flops": encoder_flops(setting.layers, run.spec.hidden, run.spec.density, setting.length),
        "steps": run.reached, "last_loss": list(run.losses.values())[-1], "losses": run.losses,
        "per_step": per_step, "moving": extra, "to_dense": quartiles,
        "seconds": None if run.reached is None else run.reached * per_step,
    }  # fmt: skip


def _usual(run: Contender, setting: Setting) -> float:
    """The median of its steps, but for the first and for those that move tiles."""
    return statistics.median(seconds for i, seconds in enumerate(run.seconds) if i and not _moves(i, setting))


def _moves(step: int, setting: Setting) -> bool:
    return (step + 1) % setting.interval == 0


def _task(setting: Setting, data_dir: str | None) -> tuple[Task, str]:
    """The pairs to train on and to score, and what the text is."""
    with tempfile.TemporaryDirectory() as folder:
        if data_dir is None:
            Path(folder, "train.txt").write_text(simulated(), encoding="utf-8")
        told = TaskArguments(task="masked_lm", data_dir=data_dir or folder, vocab_size=setting.vocab_size,
                             max_length=setting.length)  # fmt: skip
        task = pretraining.load("masked_lm", told, ModelArguments(model="bert_tiny"), 0)
    return task, task.title if data_dir else SIMULATED


def simulated(documents: int = 400, words: int = 300) -> str:
    """Documents of words of which each has four that may follow it: what comes next can be learned, but means nothing.

    No text of people: for where there is none at hand.
    """
    chance = random.Random(0)
    known = ["".join(chance.choices("abcdefghiklmnoprstuvw", k=chance.randint(2, 7))) for _ in range(words)]
    follows = [chance.choices(range(words), k=4) for _ in known]
    found = []
    for _ in range(documents):
        word, lines = chance.randrange(words), []
        for _ in range(8):
            line = []
            for _ in range(9):
                line.append(known[word])
                word = chance.choice(follows[word])
            lines.append(" ".join(line))
        found.append("\n".join(lines))
    return "\n\n".join(found) + "\n"


def _batches(task: Task, setting: Setting, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Batches of training pairs without an end, in an order of the seed."""
    data: Any = task.train
    loader: Any = DataLoader(data, setting.batch, shuffle=True, drop_last=True, collate_fn=task.collate,
                             generator=seeded(0, "batches"))  # fmt: skip
    while True:
        for batch in loader:
            yield _on(device, batch)


def _on(device: torch.device, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in batch.items()}
