"""Merged training on a tiny BERT, as the tests run it in one process and torchrun runs it in two.

Run by torchrun it trains some plans of PLANS and writes what each rank ended with and handed to the collectives.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from glue_sparse import FixedMask, SparseMethod, SparseTrainer, fisher, noise
from glue_sparse.arguments.groups import MergeArguments
from glue_sparse.arguments.training import RunArguments
from glue_sparse.core.names import is_bias
from glue_sparse.training.merging.merge import MergedTraining
from networks import bert, collate, examples

PLANS: dict[str, dict[str, Any]] = {
    "disjoint_sum": {"merge_every": 3, "refresh_every": 2},
    "shared_mean_sharded": {
        "merge_every": 4, "refresh_every": 1, "merge_rule": "mean", "worker_masks": "shared", "worker_data": "sharded",
    },
    "dense_steps": {"merge_every": 5, "refresh_every": 0, "dense_steps": 7},
    "dense": {"merge_every": 4, "method": "dense"},
}  # fmt: skip


def method_of(name: str) -> SparseMethod:
    """FISH, the same with noise, dense, or biases alone."""
    if name == "dense":
        return FixedMask(masks={})
    if name == "biases":
        matrices = {n: p.shape for n, p in bert().bert.named_parameters(prefix="bert") if not is_bias(n)}
        return FixedMask(masks={n: torch.zeros(shape, dtype=torch.bool) for n, shape in matrices.items()})
    if name == "fish":
        return FixedMask(partial(fisher, progress=False), density=0.1, num_samples=16)
    return FixedMask(noise, density=0.1, num_samples=16, score_of=lambda number: partial(noise, seed=number))


def build(
    folder: Path, method: str = "fish", model: Any = None, data: Any = None, options: Any = None, **plan: Any
) -> MergedTraining:
    """Twelve steps of a few examples each; `simulate` unless torchrun started this process."""
    settings = {
        "use_cpu": True, "per_device_train_batch_size": 4, "max_steps": 12, "learning_rate": 1e-2, "weight_decay": 0.1,
        "disable_tqdm": True, "report_to": "none", "eval_strategy": "no", "save_strategy": "no", "logging_steps": 4,
    }  # fmt: skip
    arguments = RunArguments(output_dir=str(folder), **{**settings, **(options or {})})
    where = {} if arguments.world_size > 1 else {"simulate": True, "num_workers": 2}
    trainer = SparseTrainer(
        bert() if model is None else model,
        arguments,
        method=method_of(method),
        train_dataset=examples(26) if data is None else data,
        data_collator=collate if data is None else torch.utils.data.default_collate,
    )
    return MergedTraining(trainer, MergeArguments(**{**where, **plan}))


class Wire:
    """Counts the bytes of what this rank hands to torch.distributed's collectives of tensors."""

    def __init__(self) -> None:
        self.sent = 0
        for name, position in (("all_reduce", 0), ("all_gather", 1), ("broadcast", 0)):
            setattr(dist, name, partial(self._counted, getattr(dist, name), position))

    def _counted(self, collective: Any, position: int, *args: Any, **kwargs: Any) -> Any:
        if collective.__name__ != "broadcast" or dist.get_rank() == kwargs["src"]:
            self.sent += args[position].nbytes
        return collective(*args, **kwargs)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    wire = Wire()
    for name in sys.argv[2:]:
        merged = build(out / name, **PLANS[name])
        before = wire.sent
        merged.run()
        rank = dist.get_rank()
        merged.sparse_diff().save_pretrained(out / name / f"rank{rank}")
        report = {"wire": wire.sent - before, "ledger": merged.exchange.ledger.as_rows(), **merged.communication()}
        (out / name / f"rank{rank}.json").write_text(json.dumps(report))
