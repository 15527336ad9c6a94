"""Measures seconds to a fixed loss in pre-training a small BERT: dense, smaller and dense, and of tiles that move.

Steps to the loss come from runs of each network, which depend on the seed alone. Seconds per step come from the same
runs, whose steps take turns in one process: whatever else the machine does slows all of them down alike. Their product
is the time that each would have taken alone.
"""

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
from tqdm.auto import tqdm

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.benchmarks.simulated_text import SIMULATED, simulated_text
from glue_sparse.benchmarks.tiles import sparse
from glue_sparse.core.randomness import new_weights, seeded
from glue_sparse.costs.bert_flops import encoder_entries, encoder_flops
from glue_sparse.methods.moving.plain_loop import SparseOptimizer
from glue_sparse.methods.moving.rules import DYNSPARSE
from glue_sparse.models.bert_family import config_of
from glue_sparse.models.bert_pretraining import BertForPreTraining
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.pretraining import task as pretraining


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
        seeds: of weights and the order of examples: a run of every network for each.
    """

    layers: int = 2
    hidden: int = 256
    length: int = 32
    batch: int = 64
    vocab_size: int = 256
    densities: tuple[float, ...] = (0.1,)
    block_sizes: tuple[int, ...] = (16, 32, 64)
    target: float = 3.7
    most_steps: int = 1500
    check_every: int = 25
    scored: int = 256
    rounds: int = 150
    interval: int = 50
    warmup: int = 100
    rate: float = 5e-4
    small_rate: float = 2e-3
    sparse_rate: float = 2e-3
    seeds: tuple[int, ...] = (0, 1, 2)


FULL = Setting()
SIMULATION = replace(FULL, target=2.0, most_steps=800, seeds=(0,))
"""Of the simulated text, where that loss needs what stands around a word: eight minutes at most on two cores."""
QUICK = replace(
    FULL, hidden=64, batch=16, densities=(0.25,), block_sizes=(16, 32), target=5.2, most_steps=60, check_every=20,
    scored=32, rounds=20, interval=20, warmup=10, seeds=(0,),
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


def measure(device: torch.device, setting: Setting, data_dir: str | None = None) -> dict[str, Any]:
    """Train all networks in turns to the target; returns the setting, the text and a row for each network.

    Args:
        device: where to train.
        setting: `FULL`, `SIMULATION` without a text, or `QUICK` to see that everything runs.
        data_dir: folder of text for `masked_lm`; by default a simulated text, whose losses say nothing of language.
    Raises:
        ValueError: no such text, or one of fewer pairs than a batch or a look at the validation loss takes.
    """
    task, text = _task(setting, data_dir)
    size = len(task.tokenizer)  # pyright: ignore[reportArgumentType]
    by_seed: list[list[Contender]] = []
    for seed in setting.seeds:
        by_seed.append([contender(spec, setting, size, device, seed) for spec in specs(setting)])
        train(by_seed[-1], setting, task, device, seed)
    networks = [list(runs) for runs in zip(*by_seed, strict=True)]
    return {"device": device.type, "threads": torch.get_num_threads(), "text": text, "setting": asdict(setting),
            "networks": [row(runs, networks[0], setting) for runs in networks]}  # fmt: skip


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


def contender(spec: Spec, setting: Setting, vocab_size: int, device: torch.device, seed: int) -> Contender:
    """A network from random weights, and its optimizer."""
    heads = max(1, spec.hidden // 64)
    config = config_of(
        "bert_tiny", hidden_size=spec.hidden, num_hidden_layers=setting.layers, intermediate_size=4 * spec.hidden,
        num_attention_heads=heads if spec.hidden % heads == 0 else 1, vocab_size=vocab_size,
        max_position_embeddings=setting.length,
    )  # fmt: skip
    with new_weights(seed, f"{spec.hidden}"):
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


def train(runs: Sequence[Contender], setting: Setting, task: Task, device: torch.device, seed: int) -> None:
    """A step of each in turns on the same batch, until it has reached the target and taken its part in the rounds."""
    collate: Any = task.collate
    scored = [task.evals["validation"][index] for index in range(setting.scored)]  # pyright: ignore
    validation, batches = _on(device, collate(scored)), _batches(task, setting, device, seed)
    for step in tqdm(range(setting.most_steps), desc=f"seed {seed}", unit="round"):
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


def row(runs: Sequence[Contender], dense: Sequence[Contender], setting: Setting) -> dict[str, Any]:
    """What the table says of a network by its runs of all seeds; the first round of each is for warming up.

    `steps` are those of each seed; `seconds` their median x `per_step`, where all of them reached the target.
    `per_step` is the median of steps, and what moving tiles takes beyond that, by how often it happens. `to_dense` are
    the quartiles of the ratio to the dense network's step of the same round.
    """
    spec, usual = runs[0].spec, _usual(runs, setting)
    ratios = [
        one / other for run, rival in zip(runs, dense, strict=True)
        for i, (one, other) in enumerate(zip(run.seconds, rival.seconds, strict=False)) if i and not _moves(i, setting)
    ]  # fmt: skip
    moving = [seconds - usual for run in runs for i, seconds in enumerate(run.seconds) if _moves(i, setting)]
    extra = max(0.0, statistics.median(moving)) / setting.interval if moving and spec.density < 1 else 0.0
    quartiles = statistics.quantiles(ratios, n=4)
    per_step = quartiles[1] * _usual(dense, setting) + extra
    steps = [run.reached for run in runs]
    reached = [count for count in steps if count is not None]
    return {
        **asdict(spec),
        "weights": round(spec.density * encoder_entries(setting.layers, spec.hidden)),
        "flops": encoder_flops(setting.layers, spec.hidden, spec.density, setting.length),
        "steps": steps, "last_loss": max(list(run.losses.values())[-1] for run in runs),
        "losses": [run.losses for run in runs],
        "per_step": per_step, "moving": extra, "to_dense": quartiles,
        "seconds": statistics.median(reached) * per_step if len(reached) == len(steps) else None,
    }  # fmt: skip


def _usual(runs: Sequence[Contender], setting: Setting) -> float:
    """The median of its steps, but for the first of a run and for those that move tiles."""
    return statistics.median(
        seconds for run in runs for i, seconds in enumerate(run.seconds) if i and not _moves(i, setting)
    )


def _moves(step: int, setting: Setting) -> bool:
    return (step + 1) % setting.interval == 0


def _task(setting: Setting, data_dir: str | None) -> tuple[Task, str]:
    """The pairs to train on and to score, and what the text is."""
    with tempfile.TemporaryDirectory() as folder:
        if data_dir is None:
            Path(folder, "train.txt").write_text(simulated_text(), encoding="utf-8")
        told = TaskArguments(task="masked_lm", data_dir=data_dir or folder, vocab_size=setting.vocab_size,
                             max_length=setting.length)  # fmt: skip
        task = pretraining.load("masked_lm", told, ModelArguments(model="bert_tiny"), 0)
    trained, scored = len(task.train), len(task.evals["validation"])  # pyright: ignore[reportArgumentType]
    if trained < setting.batch or scored < setting.scored:
        raise ValueError(
            f"this text gives {trained:,} pairs to train on and {scored:,} to score, of which {setting.batch} make a "
            f"step and {setting.scored} the validation loss: give more text in `data_dir`"
        )
    return task, task.title if data_dir else SIMULATED


def _batches(task: Task, setting: Setting, device: torch.device, seed: int) -> Iterator[dict[str, Tensor]]:
    """Batches of training pairs without an end, in an order of the seed."""
    data: Any = task.train
    loader: Any = DataLoader(data, setting.batch, shuffle=True, drop_last=True, collate_fn=task.collate,
                             generator=seeded(seed, "batches"))  # fmt: skip
    while True:
        for batch in loader:
            yield _on(device, batch)


def _on(device: torch.device, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in batch.items()}
