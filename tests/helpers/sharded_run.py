"""One rank of a run of SparseTrainer whose base is shared out, or whole. Run by `run_ranks`.

Arguments: folder, last step, examples per rank and micro-batch, micro-batches; and any of `resume`, `whole`,
`on_shards`, `replicated`, `bf16`, and `foreign` for a Trainer of transformers with SaveDiff.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from glue_sparse import FixedMask, SaveDiff, SparseDiff, SparseTrainer, attach, fisher, magnitude, select
from glue_sparse.core.active import active_tensors, current_masks
from glue_sparse.core.masks import digest
from networks import bert, collate, examples


def trained(folder: Path, last: int, size: int, micro: int, words: list[str]) -> SparseTrainer:
    fsdp: Any = None if "whole" in words else True
    config = {"dp_replicate_size": 2} if "replicated" in words else None
    arguments = TrainingArguments(
        str(folder / "run"), max_steps=6, per_device_train_batch_size=size, gradient_accumulation_steps=micro,
        learning_rate=1e-2, lr_scheduler_type="constant", logging_steps=1, save_steps=2, use_cpu=True,
        disable_tqdm=True, fsdp=fsdp, fsdp_config=config, report_to="none", bf16="bf16" in words,
    )  # fmt: skip
    arguments.max_steps = last
    setattr(arguments, "choose_on_shards", "on_shards" in words)  # noqa: B010  # a flag of the command line
    if "foreign" in words:
        return foreign(arguments, folder, words)
    model = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    method = FixedMask(partial(fisher, progress=False), density=0.2, num_samples=16)
    trainer = SparseTrainer(model, arguments, method=method, train_dataset=examples(48), data_collator=collate)
    trainer.train(resume_from_checkpoint="resume" in words and max(map(str, folder.glob("run/checkpoint-*"))))
    return trainer


def foreign(arguments: TrainingArguments, folder: Path, words: list[str]) -> Any:
    """The same with another Trainer, by magnitude."""
    model = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    body = tuple(name for name, _ in model.named_parameters() if not name.startswith("classifier"))
    attach(model, select(magnitude(model, body, []), 1192))

    class SavingTrainer(SaveDiff, Trainer):
        def sparse_diff(self) -> SparseDiff:
            return SparseDiff.from_model(self.accelerator.unwrap_model(self.model))

    trainer = SavingTrainer(model, arguments, train_dataset=examples(48), data_collator=collate)  # type: ignore
    trainer.train(resume_from_checkpoint="resume" in words and max(map(str, folder.glob("run/checkpoint-*"))))
    return trainer


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, last, size, micro, *words = sys.argv[1:]
    trainer = trained(Path(folder), int(last), int(size), int(micro), words)
    trainer.evaluate(examples(12))
    sharded = any(hasattr(p, "device_mesh") for p in trainer.network.parameters())
    report = {
        "masks": digest(current_masks(trainer.network)), "diff": trainer.sparse_diff().digest(), "sharded": sharded,
        "losses": [log["loss"] for log in trainer.state.log_history if "loss" in log],
        "sent": trainer.facts().get("communication", {}).get("sent_per_step", {}),
        "trained": sum(entries.num_active for _, entries in active_tensors(trainer.network)) + 34,
    }  # fmt: skip
    rank = trainer.args.process_index
    trainer.sparse_diff().save_pretrained(Path(folder, f"diff{last}of{trainer.args.world_size}rank{rank}"))
    Path(folder, f"{last}of{trainer.args.world_size}rank{rank}.json").write_text(json.dumps(report))
