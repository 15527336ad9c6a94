"""What a finished run has to say: the facts of results.json, those inside its diff, and a few lines for the reader."""

import logging
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from glue_sparse.arguments.run import Arguments
from glue_sparse.core.batches import on_device
from glue_sparse.costs.by_tensor import active_by_tensor
from glue_sparse.costs.cost import as_facts, cost_of, state_bytes
from glue_sparse.costs.flops import forward_flops, report
from glue_sparse.diffs.identity import FILE_NAME as DIFF_FILE
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.experiments.settle import asked_density
from glue_sparse.records import results
from glue_sparse.records.results import Result
from glue_sparse.tasks.base import Task
from glue_sparse.training.trainer import SparseTrainer

logger = logging.getLogger(__name__)


def info_of(arguments: Arguments, task: Task) -> DiffInfo:
    """Facts to store with the diff of a run."""
    method = arguments.method
    return DiffInfo(
        base_model=task.base_model or arguments.model.model or "",
        task=arguments.task.task or "",
        method=method.method,
        density=asked_density(method),
        labels=task.labels,
        vocab_size=getattr(task.model.config, "vocab_size", None),
    )


def result_of(
    arguments: Arguments,
    given: dict[str, Any],
    task: Task,
    trainer: SparseTrainer,
    metrics: dict[str, dict[str, float]],
    seconds: dict[str, float],
    command: str,
) -> Result:
    stored = Path(str(trainer.args.output_dir), DIFF_FILE)
    stored_bytes = stored.stat().st_size if stored.exists() else 0
    cost = replace(trainer.cost or cost_of(trainer.network), stored_bytes=stored_bytes)
    if isinstance(trainer.optimizer, Optimizer):  # workers that merge have optimizers of their own
        cost = replace(cost, state_bytes=state_bytes(trainer.optimizer))
    info = trainer.info
    given = {k: v for k, v in given.items() if k not in ("output_dir", "resume_from_checkpoint", "overwrite")}
    return Result(
        task=task.name,
        title=task.title,
        method=info.method,
        density=info.density,
        seed=arguments.training.seed,
        model=info.base_model,
        main_metric=task.main_metric,
        metrics=metrics,
        history=trainer.state.log_history,
        cost=as_facts(cost),
        seconds=seconds,
        source=task.source,
        arguments=given,
        command=command,
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        versions=results.installed_versions(),
        flops=_flops(trainer, arguments, task),
        connections=trainer.method.facts(trainer.network),
        learning_rate=trainer.args.learning_rate,
        active_by_tensor=active_by_tensor(trainer.network),
    )


def _flops(trainer: SparseTrainer, arguments: Arguments, task: Task) -> dict[str, float]:
    """As measured on one batch of the training data, and by the task's own formula; without what cannot be counted.

    A run that has been trained is not lost for that, whatever a model of anyone's says to be counted.
    """
    found: dict[str, float] = {}
    for count in (lambda: _counted(trainer, arguments), lambda: _more_flops(trainer, task)):
        try:
            found.update(count())
        except Exception as error:  # noqa: BLE001, PERF203
            logger.warning("FLOPs were not counted (%s): %s", type(error).__name__, error)
    return found


def _counted(trainer: SparseTrainer, arguments: Arguments) -> dict[str, float]:
    batch = next(iter(trainer.sample_batches(trainer.args.per_device_train_batch_size)))
    forward = forward_flops(trainer.network, on_device(batch, trainer.network))
    workers = arguments.merge.num_workers or arguments.training.world_size if arguments.merge.merge_every else 1
    seen = _examples_seen(trainer) * workers
    rule, period = trainer.method.flops_rule(trainer.state.max_steps, trainer.num_epochs)
    return report(forward, rule, seen, period)


def _more_flops(trainer: SparseTrainer, task: Task) -> dict[str, float]:
    """By the task's own formula; where phases differ, the last one's says nothing of the run."""
    return task.more_flops(trainer.network) if task.more_flops and not trainer.method.has_phases else {}


def _examples_seen(trainer: SparseTrainer) -> int:
    """Examples in training, of one worker; by the number of steps where the data have no length."""
    data: Any = trainer.train_dataset
    if hasattr(data, "__len__"):
        return round((trainer.state.epoch or 0) * len(data))
    args = trainer.args
    return trainer.state.global_step * args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def _exchanged(told: dict[str, Any]) -> str:
    """A line on what processes have sent to each other, where that was counted."""
    if "num_merges" in told:
        return (f"each of {told['num_workers']} workers sent {told['sent_per_worker']:,.0f} bytes in "
                f"{told['num_merges']} merges; a dense run sends {told['dense_sent_per_worker']:,}\n")  # fmt: skip
    if "sent_per_step" in told:
        kinds = ", ".join(f"{kind} {size:,}" for kind, size in told["sent_per_step"].items())
        return f"each of {told['num_ranks']} ranks sends in a step, in bytes: {kinds}\n"
    return ""


def summary(result: Result, folder: str) -> str:
    """A few lines for the end of a run."""
    cost = result.cost
    scores = ", ".join(f"{split} {m[result.main_metric]:.4f}" for split, m in result.metrics.items())
    exchanged = _exchanged(result.communication)
    flops = result.flops
    computed = (
        f"FLOPs: {flops['forward_flops']:.3g} forward per example ({flops['forward_share']:.1%} of dense), "
        f"{flops['training_flops']:.3g} in training ({flops['training_share']:.1%} of dense)\n"
        if "forward_flops" in flops
        else ""
    )
    pruned = (
        f"zero: {cost['zero_entries']:,} weights, {cost['sparsity']:.3%} of the {cost['masked_entries']:,} in the "
        f"tensors to prune, {cost['model_sparsity']:.3%} of the model\n"
        if cost.get("zero_entries")
        else ""
    )
    return (
        f"{result.title} | {result.method} | {result.main_metric}: {scores}\n"
        f"trained {result.trained_entries:,} of {cost['num_entries']:,} weights "
        f"({result.trained_entries / cost['num_entries']:.3%}), "
        f"stored {cost['stored_bytes']:,} bytes, {result.seconds['train']:.0f} s\n"
        f"{pruned}{computed}{exchanged}"
        f"results: {folder}/{results.FILE_NAME}   diff: {folder}/{DIFF_FILE}"
    )
