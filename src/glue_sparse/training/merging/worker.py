"""One worker: its own copy of the model, entries, order of the data and optimizer; it trains alone between merges."""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, get_scheduler

from glue_sparse.arguments.groups import MergeArguments
from glue_sparse.arguments.training import RunArguments
from glue_sparse.core.active import active_tensors, attach
from glue_sparse.core.batches import Batch, loss_of, on_device
from glue_sparse.core.chosen import positions_of
from glue_sparse.core.folding import fold
from glue_sparse.core.masks import Masks
from glue_sparse.core.parametrization import is_attached, original, persistent_buffers, wholly_active, write_entries
from glue_sparse.core.randomness import seed_of, seeded
from glue_sparse.core.reindexing import reindex
from glue_sparse.methods.moving.explored import explored_state, load_explored
from glue_sparse.training.means import Items, Loss, find_items
from glue_sparse.training.merging.exchange import Exchange
from glue_sparse.training.support import announce_frozen, built_as_asked
from glue_sparse.training.trainer import SparseTrainer
from glue_sparse.training.windows import shares, weighted

Entries = dict[str, Tensor]
"""Parameter name -> sorted flat positions of its active entries, on the CPU; tensors without any are left out."""


def entries_of(masks: Masks) -> Entries:
    """Where masks are active."""
    found = {name: positions_of(masks, name) for name in masks}
    return {name: indices for name, indices in found.items() if len(indices)}


class LocalOrder:
    """Which examples a worker sees at each of its steps: a function of (seed, worker, step) alone.

    Args:
        num_examples: size of the training set.
        batch_size: examples per batch; the last one of a pass may be smaller.
        worker: (i, n), this worker's number and how many there are.
        sharded: pass over an n-th of the data instead of all of it.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int, worker: tuple[int, int], sharded: bool):
        self.batch_size, self.seed, self.worker = batch_size, seed, worker
        everything = torch.randperm(num_examples, generator=seeded(seed, "shards"))
        self.rows = everything[worker[0] :: worker[1]] if sharded else torch.arange(num_examples)
        if not len(self.rows):
            raise ValueError(f"{num_examples} training examples are too few for {worker[1]} workers")
        self.batches_per_pass = -(-len(self.rows) // batch_size)
        self._order: tuple[int, Tensor] = (-1, self.rows)

    def batch(self, number: int) -> list[int]:
        """Row numbers of a batch."""
        number_of_pass, within = divmod(number, self.batches_per_pass)
        if self._order[0] != number_of_pass:
            shuffle = torch.randperm(
                len(self.rows), generator=seeded(self.seed, "local order", self.worker[0], number_of_pass)
            )
            self._order = (number_of_pass, self.rows[shuffle])
        return self._order[1][within * self.batch_size : (within + 1) * self.batch_size].tolist()


class Worker:
    """Trains a model of its own for some steps, then says what changed and takes over what all workers agreed on.

    Args:
        model: this worker's alone; plain, on its device.
        head: names of the parameters that are averaged when workers merge.
        args: optimizer, schedule, clipping, precision, seed.
        num_steps: local steps of the whole run, for the schedule.
        order: which examples to see.
        fetch: row numbers -> collated batch.

    Attributes:
        step: local steps done.
        optimizer: made by the first `activate`.
    """

    optimizer: torch.optim.Optimizer
    _multiplier: Callable[[int], float]
    _parts: dict[str, list[Tensor]]
    _start: dict[str, Tensor]

    def __init__(
        self,
        model: nn.Module,
        head: tuple[str, ...],
        args: RunArguments,
        num_steps: int,
        order: LocalOrder,
        fetch: Callable[[list[int]], Batch],
    ):
        self.model, self.head, self.args, self.num_steps = model, set(head), args, num_steps
        self.order, self.fetch, self.step = order, fetch, 0
        self._items, self._settled = Items("labels"), False

    def activate(self, masks: Masks) -> None:
        """Make these entries the active ones: the first time with a new optimizer, then with its state carried over."""
        if is_attached(self.model):
            reindex(self.model, masks, self.optimizer)
        else:
            attach(self.model, masks)
            self.optimizer = self._new_optimizer()
            self._multiplier = self._schedule()
        self._parts = self._find_parts()
        self.remember()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        """The Trainer's choice of optimizer over all active values, also those of tensors that have none yet."""
        with built_as_asked("the optimizer of `optim`", self.args.optim):
            kind, options = Trainer.get_optimizer_cls_and_kwargs(self.args)
        named = dict(wholly_active(self.model))
        named |= {name: entries.values for name, entries in active_tensors(self.model)}
        # as in Trainer: neither biases nor the weights of norms, which are vectors, decay
        decayed = [p for name, p in named.items() if _num_dimensions(self.model, name) > 1]
        rest = [p for name, p in named.items() if _num_dimensions(self.model, name) <= 1]
        groups = [{"params": decayed, "weight_decay": self.args.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        return kind([group for group in groups if group["params"]], **options)

    def _schedule(self) -> Callable[[int], float]:
        warmup = self.args.get_warmup_steps(self.num_steps)
        kind, options = self.args.lr_scheduler_type, self.args.lr_scheduler_kwargs
        assert not isinstance(options, str)  # TrainingArguments has parsed it
        with built_as_asked("the schedule of `lr_scheduler_type`", kind):
            scheduler: Any = get_scheduler(kind, self.optimizer, warmup, self.num_steps, options)
        if not hasattr(scheduler, "lr_lambdas"):
            raise ValueError(f"`lr_scheduler_type` {kind} depends on scores, not steps alone")
        return scheduler.lr_lambdas[0]

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self.args.learning_rate * self._multiplier(self.step)

    def train_until(self, step: int, progress: Callable[[], object] = lambda: None) -> float:
        """Train alone up to a step; returns the mean loss."""
        losses: list[Tensor] = []
        self.model.train()
        while self.step < step:
            # chance is a function of (seed, worker, step), so workers may take turns and runs may resume
            torch.manual_seed(seed_of(self.args.seed, "local step", self.order.worker[0], self.step))
            losses.append(self._train_step())
            self.step += 1
            progress()
        return float(torch.stack(losses).mean()) if losses else float("nan")

    def _train_step(self) -> Tensor:
        parts, device = self.args.gradient_accumulation_steps, next(self.model.parameters()).device
        total = torch.zeros((), device=device)
        numbers = range(self.step * parts, (self.step + 1) * parts)
        batches = [on_device(self.fetch(self.order.batch(number)), self.model) for number in numbers]
        if not self._settled and parts > 1:
            asked: Loss = lambda batch: loss_of(self.model(**batch))  # noqa: E731
            self._items, self._settled = find_items(asked, self.model, batches)
        for batch, share in zip(batches, shares(batches, self._items, device), strict=True):
            with torch.autocast(device.type, torch.bfloat16) if self.args.bf16 else nullcontext():
                output = self.model(**batch)
            loss = weighted(loss_of(output), share) / parts
            loss.backward()
            total += loss.detach().float()
        trained = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.args.max_grad_norm:
            nn.utils.clip_grad_norm_(trained, self.args.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _find_parts(self) -> dict[str, list[Tensor]]:
        """What this worker trains: active `values`, whole tensors of the `body`, those of the `head`, and `buffers`.

        Training writes these tensors in place, so the list holds until other entries become active.
        """
        whole = wholly_active(self.model)
        return {
            "values": [entries.values.data for _, entries in active_tensors(self.model)],
            "body": [p.data for name, p in whole.items() if name not in self.head],
            "head": [p.data for name, p in whole.items() if name in self.head],
            "buffers": [b for b in persistent_buffers(self.model).values() if b.is_floating_point()],
        }

    def remember(self) -> None:
        """Updates are counted from here."""
        self._start = {part: flat(tensors) for part, tensors in self._parts.items()}

    def update(self, part: str) -> Tensor:
        """[n] float32 change since `remember`."""
        return flat(self._parts[part]) - self._start[part]

    def at_start_plus(self, part: str, update: Tensor) -> Tensor:
        """[n] float32 numbers that a part held at `remember`, with an update."""
        return self._start[part] + update

    def own(self, part: str, scale: float) -> Tensor:
        """[n] float32 numbers of a part when this worker's update, times `scale`, is the only one."""
        return flat(self._parts[part]) if scale == 1.0 else self.at_start_plus(part, self.update(part) * scale)

    def put(self, part: str, numbers: Tensor) -> None:
        """Write [n] numbers into a part."""
        tensors = self._parts[part]
        for tensor, new in zip(tensors, numbers.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(new.view(tensor.shape))
        if part == "values":
            fold(self.model)

    def write(self, entries: Entries, values: Tensor) -> None:
        """Write another worker's values where it is active, into tensors that this worker has masked."""
        parts = values.split([len(indices) for indices in entries.values()])
        for (name, indices), new in zip(entries.items(), parts, strict=True):
            weight = original(self.model, name)
            write_entries(weight, indices.to(weight.device), new)
        fold(self.model)  # where both are active this worker's own stay

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the merged model: values, the optimizer's state, what was ever active."""
        tensors = explored_state(self.model)
        tensors |= {f"values/{name}": entries.values.detach() for name, entries in active_tensors(self.model)}
        for name, parameter in self._trained().items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{name}/{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
        return {name: tensor.cpu().clone() for name, tensor in tensors.items()}

    def load_state(self, tensors: dict[str, Tensor], step: int) -> None:
        """Continue from what `state` gave, with the same entries active."""
        trained = self._trained()
        number = {id(p): i for i, p in enumerate(p for g in self.optimizer.param_groups for p in g["params"])}
        state: dict[int, dict[str, Tensor]] = {}
        load_explored(self.model, tensors)
        for key, tensor in tensors.items():
            part, _, rest = key.partition("/")
            if part == "values":
                trained[rest].data.copy_(tensor)
            elif part == "optimizer":
                name, _, field = rest.rpartition("/")
                state.setdefault(number[id(trained[name])], {})[field] = tensor
        # the optimizer knows on which device each part of its state belongs
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        fold(self.model)
        self.step = step
        self.remember()

    def _trained(self) -> dict[str, nn.Parameter]:
        compact = {name: entries.values for name, entries in active_tensors(self.model)}
        return {**compact, **wholly_active(self.model)}


def run_length(args: RunArguments, num_examples: int) -> tuple[int, int]:
    """(local steps of a whole run, local steps of one pass).

    One pass is as many steps as it takes to see all data once, whether a worker sees all of it or only its share.
    """
    steps_per_pass = math.ceil(num_examples / (args.per_device_train_batch_size * args.gradient_accumulation_steps))
    num_steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_per_pass)
    return num_steps, steps_per_pass


def build_workers(trainer: SparseTrainer, plan: MergeArguments, exchange: Exchange, num_steps: int) -> list[Worker]:
    """The workers of this process; the first one trains the trainer's own model, the others copies of it."""
    data: Any = trainer.train_dataset
    args = trainer.args
    assert isinstance(args, RunArguments)
    announce_frozen(trainer.network)
    collate = trainer._get_collator_with_removed_columns(trainer.data_collator)
    models = [trainer.network, *(copy.deepcopy(trainer.network) for _ in exchange.local[1:])]
    workers = []
    for model, index in zip(models, exchange.local, strict=True):
        place, sharded = (index, exchange.num_workers), plan.worker_data == "sharded"
        order = LocalOrder(len(data), args.per_device_train_batch_size, args.seed, place, sharded)
        fetch = lambda rows: collate([data[row] for row in rows])  # noqa: E731
        workers.append(Worker(model, trainer.head, args, num_steps, order, fetch))
    return workers


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers in one new float32 vector."""
    return torch.cat([t.detach().reshape(-1).float() for t in tensors]) if tensors else torch.zeros(0)


def stored_shares(tensors: dict[str, Tensor], shapes: dict[str, torch.Size]) -> list[Masks]:
    """The workers' masks from a checkpoint's tensors `share/NUMBER/NAME`, which hold the entries of each."""
    stored = [key.split("/", 2)[1:] for key in sorted(tensors) if key.startswith("share/")]
    nothing = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes.items()}
    shares = {number: {name: mask.clone() for name, mask in nothing.items()} for number, _ in stored}
    for number, name in stored:
        shares[number][name].view(-1)[tensors[f"share/{number}/{name}"]] = True
    return list(shares.values())


def _num_dimensions(model: nn.Module, name: str) -> int:
    return original(model, name).dim()
