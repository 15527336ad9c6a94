"""One rank of test_two_workers: trains the tiny BERT under DDP and writes what it saw. Run by torchrun."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from transformers import TrainerCallback, TrainingArguments

from glue_sparse import FixedMask, SparseTrainer, fisher, noise
from glue_sparse.core.active import current_masks
from glue_sparse.core.masks import digest, positions
from glue_sparse.methods.base import SparseMethod
from glue_sparse.methods.gates.diff_gates import DiffGates
from glue_sparse.methods.moving.alternate import Alternate
from glue_sparse.methods.moving.drop_grow import DropGrow, with_changes
from glue_sparse.methods.moving.rules import DYNSPARSE, PRESETS, gradient_magnitude
from glue_sparse.scores.named import named
from networks import bert, collate, examples


class CountBytes(TrainerCallback):
    """Counts the bytes that each step hands to the gradient all-reduce."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.sent = self.buffers = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        def hook(group: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # pyright: ignore
            self.sent += bucket.buffer().nbytes
            return allreduce_hook(group, bucket)

        wrapped = self.trainer.model_wrapped
        if isinstance(wrapped, torch.nn.parallel.DistributedDataParallel):
            wrapped.register_comm_hook(None, hook)
            self.buffers = sum(buffer.nbytes for buffer in wrapped.modules_buffers)


def train(folder: str, batch: int, method: SparseMethod) -> tuple[SparseTrainer, CountBytes]:
    """Six steps with `batch` examples per rank."""
    counter = CountBytes()
    arguments = TrainingArguments(
        output_dir=folder, per_device_train_batch_size=batch, max_steps=6, learning_rate=1e-2, max_grad_norm=0.5,
        use_cpu=True, save_strategy="steps", save_steps=6, disable_tqdm=True, optim="sgd", logging_steps=1,
    )  # fmt: skip
    trainer = SparseTrainer(
        bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
        arguments,
        method=method,
        train_dataset=examples(48),
        data_collator=collate,
        callbacks=[counter],
    )
    counter.trainer = trainer
    trainer.train()
    return trainer, counter


def moving(name: str) -> SparseMethod:
    """A method that changes which entries are active."""
    tiles = with_changes(DYNSPARSE, intervals=3, block_size=4, grow=gradient_magnitude, gradients="at_updates")
    others: dict[str, SparseMethod] = {
        "refreshed": FixedMask(noise, density=0.05, update_every=2, score_of=lambda i: partial(noise, seed=i)),
        "tiles": DropGrow(tiles, density=0.25, group_lasso=0.1),
        "phases": Alternate(3, density=0.2, selection="random"),
    }
    return others.get(name) or DropGrow(with_changes(PRESETS[name], every=2, until=1.0), density=0.2)


def fixed(out: Path, batch: int) -> None:
    """FISH, with what was sent, and beside it what GraSP would have chosen."""
    fish = FixedMask(partial(fisher, progress=False), density=0.05, num_samples=31)
    trainer, counter = train(str(out / "fish"), batch, fish)
    rank = trainer.args.process_index
    grasp = FixedMask(named("grasp", progress=False), density=0.05, num_samples=31)
    shared = partial(trainer.sample_batches, share=(rank, trainer.args.world_size))
    chosen = positions(grasp.prepare(bert(), trainer.head, shared, trainer._add_over_ranks))
    report = {
        "world": trainer.args.world_size,
        "digest": digest(current_masks(trainer.network)),
        "grasp": chosen.tolist(),
        "bytes_per_step": counter.sent / 6,
        "buffer_bytes_per_step": counter.buffers,
        "trainable": sum(p.numel() for p in trainer.network.parameters() if p.requires_grad),
        "losses": [log["loss"] for log in trainer.state.log_history if "loss" in log],
    }
    trainer.sparse_diff().save_pretrained(out / f"fish{rank}")
    (out / f"rank{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    out, batch = Path(sys.argv[1]), int(sys.argv[2])
    for name in sys.argv[3:]:
        if name == "fish":
            fixed(out, batch)
            continue
        method = DiffGates(penalty=1e-3, alpha_init=1.0) if name == "gates" else moving(name)
        trainer, _ = train(str(out / name), batch, method)
        trainer.sparse_diff().save_pretrained(out / f"{name}{trainer.args.process_index}")
