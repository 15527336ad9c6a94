"""Workers train apart, then add their updates (Sung et al., 2021, section 4.2): when they meet, what they agree on."""

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerState

from glue_sparse.arguments.groups import MergeArguments
from glue_sparse.arguments.training import RunArguments
from glue_sparse.core import ranks
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.masks import Masks, from_positions, positions
from glue_sparse.core.parametrization import current_tensors, persistent_buffers
from glue_sparse.core.params import trainable_names
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.records import checkpoints
from glue_sparse.training.divergence import check_metrics, check_values, check_workers
from glue_sparse.training.merging import worker_file
from glue_sparse.training.merging.exchange import open_exchange, summary
from glue_sparse.training.merging.limits import check
from glue_sparse.training.merging.worker import Entries, build_workers, entries_of, run_length
from glue_sparse.training.trainer import SparseTrainer

logger = logging.getLogger(__name__)


class MergedTraining:
    """Several workers, one merged model.

    Between merges each worker trains its own active entries. At a merge, entries that one worker has to itself take its
    values (`sum`) or its values' mean with the others' zero updates (`mean`); of entries that all workers train, the
    updates are added or averaged. The head and floating-point buffers are averaged in any case.

    Args:
        trainer: holds the model, the method, the data and the arguments; evaluates and logs. Its `train` is not used.
        plan: when workers meet and how they merge.
    Raises:
        ValueError: arguments that this kind of training cannot honour, or a method that refuses it.
    """

    def __init__(self, trainer: SparseTrainer, plan: MergeArguments):
        assert plan.merge_every is not None and isinstance(trainer.args, RunArguments)
        self.trainer, self.method, self.plan, self.args = trainer, trainer.method, plan, trainer.args
        trainer.agreement.more.update({f"`{name}`": value for name, value in asdict(plan).items()})
        self.exchange = open_exchange(plan, self.args.world_size)
        data: Any = trainer.train_dataset
        check(self.args, plan, self.exchange.num_workers, len(data), getattr(self.method, "density", 0))
        if trainer.plan:
            raise ValueError("`merge_every` has each worker train a whole model of its own: leave it out, or leave "
                             "`fsdp` out")  # fmt: skip
        if self.method.refuses_merging:
            raise ValueError(f"{self.method.refuses_merging}: leave `merge_every` out")
        self.merge_every = plan.merge_every
        self.num_refreshes, self.is_dense_phase, self.first_merge = 0, False, 0
        self.shares: list[Entries] = []
        network = trainer.network
        self.shapes = {name: network.get_parameter(name).shape for name in trainable_names(network, trainer.head)}
        self.base = {name: t.detach().to("cpu", copy=True) for name, t in current_tensors(network).items()}
        self.needs_data = self.method.needs_data
        # a copy without active entries, by which worker 0 chooses
        self.plain = copy.deepcopy(network) if 0 in self.exchange.local and self.needs_data else None
        self.num_steps, self.steps_per_pass = run_length(self.args, len(data))
        self.workers = build_workers(trainer, plan, self.exchange, self.num_steps)
        if plan.dense_steps and not self.needs_data and any(self._choose(0)):
            raise ValueError("`dense_steps` is for methods that choose by a score")

    def run(self, checkpoint: str | None = None) -> None:
        """`start` and `fit`."""
        self.start(checkpoint)
        self.fit(checkpoint)

    def start(self, checkpoint: str | None) -> None:
        """Choose the workers' active entries, or take them from a checkpoint."""
        self.trainer.agreement.check()
        if checkpoint:
            with ranks.together():
                self._load(Path(checkpoint))
        else:
            self._start()

    def fit(self, checkpoint: str | None = None, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Train after `start`; the trainer's model is the merged one afterwards.

        Args:
            interrupted: asked after each merge; when true, a checkpoint is saved and training ends early.
        Raises:
            RuntimeError: processes ended with different models.
        """
        bar = tqdm(
            total=self.num_steps, initial=self.step, desc="merged training", unit="step",
            disable=self.args.disable_tqdm or self.exchange.local[0] > 0,
        )  # fmt: skip
        self.trainer.state.max_steps = self.num_steps
        with bar:
            while self.step < self.num_steps:
                before, target = self.step, self._next_merge()
                ticks = [bar.update] + [lambda: None] * len(self.workers)
                losses = [w.train_until(target, tick) for w, tick in zip(self.workers, ticks, strict=False)]
                check_workers(losses, self.exchange.agree, self.step, self.workers[0].learning_rate)
                self._merge()
                self._choose_again()
                stops = interrupted()
                self._report(before, losses[0], stops)
                if stops:
                    return
        self._check_agreement()
        check_values(self.workers[0].model, self.step, self.workers[0].learning_rate)

    @property
    def step(self) -> int:
        """Local steps that every worker has done."""
        return self.workers[0].step

    def _start(self) -> None:
        if self.plan.dense_steps and self.needs_data:
            self.is_dense_phase = True
            everything = {name: torch.ones(shape, dtype=torch.bool) for name, shape in self.shapes.items()}
            self._activate([everything])
        else:
            self._activate(self._choose(0))

    def _next_merge(self) -> int:
        target = min((self.step // self.merge_every + 1) * self.merge_every, self.num_steps)
        return min(target, self.plan.dense_steps) if self.is_dense_phase else target

    def _merge(self) -> None:
        exchange, count = self.exchange, self.exchange.num_workers
        exchange.merge += 1
        scale = 1.0 if self.plan.merge_rule == "sum" else 1.0 / count
        if len(self.shares) > 1:
            self._swap_values(scale)
        else:
            self._add("values", "values", scale)
        self._add("body", "values", scale)
        self._add("head", "head", 1.0 / count)
        self._add("buffers", "buffers", 1.0 / count)
        for worker in self.workers:
            worker.remember()

    def _add(self, part: str, kind: str, scale: float) -> None:
        updates = [worker.update(part) for worker in self.workers]
        if not updates[0].numel():
            return
        total = self.exchange.add(kind, updates) * scale
        for worker in self.workers:
            worker.put(part, worker.at_start_plus(part, total))

    def _swap_values(self, scale: float) -> None:
        """Entries with one owner: it sends their final values, so that all workers hold the same bits."""
        own = [worker.own("values", scale) for worker in self.workers]
        everyones = self.exchange.gather("values", own)
        for worker, index in zip(self.workers, self.exchange.local, strict=True):
            worker.put("values", everyones[index])
            for other, values in enumerate(everyones):
                if other != index:
                    worker.write(self.shares[other], values)

    def _choose_again(self) -> None:
        if not self.needs_data or self.step >= self.num_steps:
            return
        if self.is_dense_phase:
            if self.step < self.plan.dense_steps:
                return
            self.is_dense_phase, self.first_merge = False, self.exchange.merge
            self._activate(self._choose(0))
            return
        every, done = self.plan.refresh_every, self.exchange.merge - self.first_merge
        if every and done % every == 0:
            self.num_refreshes += 1
            self._activate(self._choose(self.num_refreshes))

    def _choose(self, number: int) -> list[Masks]:
        """Masks for every worker, or one for all; chosen by worker 0 on the merged model and sent to the others."""
        method, head = self.method, self.trainer.head
        num_shares = self.exchange.num_workers if self.plan.worker_masks == "disjoint" else 1
        if not method.needs_data:
            return method.prepare_shares(self.workers[0].model, head, lambda count: (), num_shares, number)
        found = None
        if self.plain is not None:
            tensors = current_tensors(self.plain)
            for name, tensor in current_tensors(self.workers[0].model).items():
                tensors[name].data.copy_(tensor)
            batches = partial(self.trainer.sample_batches, draw=number)
            chosen = method.prepare_shares(self.plain, head, batches, num_shares, number)
            everything = {name: torch.ones(shape, dtype=torch.bool) for name, shape in self.shapes.items()}
            found = torch.stack([positions({n: masks.get(n, everything[n]) for n in self.shapes}) for masks in chosen])
        return [from_positions(row, self.shapes) for row in self.exchange.broadcast("indices", found)]

    def _activate(self, shares: list[Masks]) -> None:
        self.shares = [entries_of(masks) for masks in shares]
        for worker, index in zip(self.workers, self.exchange.local, strict=True):
            worker.activate(shares[index % len(shares)])

    def _report(self, before: int, loss: float, stops: bool) -> None:
        """Log, evaluate and save where the Trainer would, at the first merge that comes."""
        state, args = self.trainer.state, self.args
        state.global_step, state.epoch = self.step, self.step / self.steps_per_pass
        if self._passed(before, args.logging_steps):
            rate = self.workers[0].learning_rate
            self.trainer.log({"loss": loss, "learning_rate": rate, "merge": self.exchange.merge})
        if self._due(args.eval_strategy, args.eval_steps, before):
            check_metrics(self.trainer.evaluate(), self.step, self.workers[0].learning_rate)
        if stops or self._due(args.save_strategy, args.save_steps, before):
            self._save()

    def _due(self, strategy: str, every: float | None, before: int) -> bool:
        if strategy == "epoch":
            return self._passed(before, self.steps_per_pass) or self.step == self.num_steps
        return strategy == "steps" and self._passed(before, every or 0)

    def _passed(self, before: int, every: float) -> bool:
        """As in Trainer, a period below 1 is a fraction of the run."""
        period = math.ceil(every * self.num_steps) if every < 1 else int(every)
        return period > 0 and self.step // period > before // period

    def _check_agreement(self) -> None:
        for worker in self.workers:
            digests = [tensor_digest(tensor) for tensor in current_tensors(worker.model).values()]
            if not self.exchange.agree("".join(digests)):
                raise RuntimeError("the workers' models differ after the last merge; that is a mistake of ours")

    def sparse_diff(self) -> SparseDiff:
        """The merged model against the base."""
        return SparseDiff.between(self.base, self.workers[0].model, self.trainer.head, self.trainer.info)

    def facts(self) -> dict[str, Any]:
        """What a run's result says of this kind of training."""
        return {"communication": self.communication()}

    def communication(self) -> dict[str, Any]:
        """What all workers sent, beside what they would have sent with everything training; all ranks must call it."""
        dense = sum(4 * tensor.numel() for tensor in self.base.values() if tensor.is_floating_point())
        found = summary(self.exchange.entries(), self.exchange.num_workers, dense)
        buffers = sum(buffer.numel() for buffer in persistent_buffers(self.workers[0].model).values())
        changed = self.sparse_diff().num_entries - buffers
        return {**asdict(self.plan), **found, "num_refreshes": self.num_refreshes, "changed_entries": changed}

    def _save(self) -> None:
        """Merged model, each worker's own state, and last of all the list of files, which makes it complete."""
        check_values(self.workers[0].model, self.step, self.workers[0].learning_rate)
        folder = Path(str(self.args.output_dir), f"checkpoint-{self.step}")
        if self.exchange.local[0] == 0:
            checkpoints.begin(folder)
        self.exchange.wait()
        progress = worker_file.Progress(
            step=self.step, merge=self.exchange.merge, first_merge=self.first_merge, num_refreshes=self.num_refreshes,
            is_dense_phase=self.is_dense_phase, num_workers=self.exchange.num_workers,
        )  # fmt: skip
        shares = {
            f"share/{i:06d}/{name}": indices
            for i, entries in enumerate(self.shares)
            for name, indices in entries.items()
            if self.needs_data  # what follows from a rule needs no file
        }
        for worker, index in zip(self.workers, self.exchange.local, strict=True):
            sent = [one for one in self.exchange.ledger.entries if one.worker == index]
            tensors = {**shares, **{f"state/{name}": tensor for name, tensor in worker.state().items()}}
            worker_file.write(worker_file.path_of(folder, index), tensors, progress, sent)
        if self.exchange.local[0] == 0:
            self.sparse_diff().save_file(folder)
        self.exchange.wait()
        if self.exchange.local[0] == 0:
            self.trainer.state.save_to_json(str(folder / checkpoints.STATE))
            checkpoints.seal(folder)
            checkpoints.rotate(folder.parent, folder, self.args.save_total_limit)
        self.exchange.wait()

    def _load(self, folder: Path) -> None:
        checkpoints.check(folder)
        state = TrainerState.load_from_json(str(folder / checkpoints.STATE))
        state.is_world_process_zero = self.trainer.is_world_process_zero()
        state.is_local_process_zero = self.trainer.is_local_process_zero()
        merged = SparseDiff.from_pretrained(folder)
        ruled = [] if self.needs_data else self._choose(0)  # on the plain model, as at the start
        place = worker_file.Place(folder, self.exchange.num_workers, state.global_step, self.shapes)
        pairs = list(zip(self.workers, self.exchange.local, strict=True))
        found = [worker_file.load(place, index, worker.model, ruled) for worker, index in pairs]
        merged.check(self.workers[0].model)
        self.trainer.state = state  # all is checked: from here on things change
        for worker, one in zip(self.workers, found, strict=True):
            merged.merge_into(worker.model, check=False)
            self.shares, facts = [entries_of(share) for share in one.shares], one.facts
            worker.activate(one.masks)
            worker.load_state(one.state, facts.step)
            self.exchange.merge, self.first_merge = facts.merge, facts.first_merge
            self.num_refreshes, self.is_dense_phase = facts.num_refreshes, facts.is_dense_phase
        self.exchange.ledger.entries = [sent for one in found for sent in one.facts.ledger]
