"""run(arguments) -> Result: the straight line that every experiment follows."""

import sys
import time
from contextlib import nullcontext
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import set_seed

from glue_sparse.analysis import density as analysis
from glue_sparse.analysis import learning_rates
from glue_sparse.arguments.command_line import parse
from glue_sparse.arguments.groups import Arguments, RunArguments
from glue_sparse.arguments.method import SPARSE, MethodArguments
from glue_sparse.core import tensor_files
from glue_sparse.core.active import current_masks
from glue_sparse.costs.cost import cost_of
from glue_sparse.diffs import diff_file, pruned_model
from glue_sparse.diffs.diff_file import FILE_NAME as DIFF_FILE
from glue_sparse.experiments.outcome import info_of, result_of, summary
from glue_sparse.methods.base import SparseMethod
from glue_sparse.methods.gates.gate_file import FILE_NAME as GATES_FILE
from glue_sparse.methods.moving.pattern_file import PATTERNS
from glue_sparse.methods.registry import build_method
from glue_sparse.models import sources, vision
from glue_sparse.records import folder as run_folder
from glue_sparse.records import results
from glue_sparse.records.results import Result
from glue_sparse.records.scales import is_loss
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.registry import load_task
from glue_sparse.training.delta_checkpoints import DeltaCheckpoints
from glue_sparse.training.interrupt import SaveOnSignal
from glue_sparse.training.merging.merge import MergedTraining
from glue_sparse.training.trainer import SparseTrainer
from glue_sparse.writing.ending import Interrupted, one_sentence


def run(arguments: Arguments, command: str = "") -> Result:
    """Load the task, build the method, train, evaluate, write.

    Raises:
        ValueError: anything the user can mend, before training starts.
        Interrupted: stopped by a signal, after a checkpoint was saved.
    """
    training, given = arguments.training, _settings(arguments)
    folder = Path(training.output_dir or ".")
    if training.resume_from_checkpoint == "auto" and (folder / results.FILE_NAME).exists():
        finished = results.read(folder / results.FILE_NAME)
        results.check_same_settings(folder, finished.arguments, given)
        if training.save_model and not (folder / "model").exists():
            print(f"the run is finished; for its model: python scripts/diff.py apply {folder} {folder / 'model'}")
        return finished
    with run_folder.claimed(training, given) as checkpoint:
        return _run(arguments, given, folder, checkpoint, command)


def _settings(arguments: Arguments) -> dict[str, Any]:
    """The values given, and the content of the diff to start from, which decides more than its path does."""
    start = arguments.method.start_diff
    if start is None:
        return arguments.given
    return {**arguments.given, results.START: diff_file.identity(tensor_files.locate(start, DIFF_FILE))[0]}


def _run(
    arguments: Arguments, given: dict[str, Any], folder: Path, checkpoint: str | None, command: str
) -> Result:
    if _scales_rate(arguments):
        arguments = _with_scaled_rate(arguments)
    training = arguments.training
    if training.n_gpu > 1:
        raise ValueError(f"{training.n_gpu} GPUs are visible to one process: use accelerate launch for all of them, or "
                         "choose one with CUDA_VISIBLE_DEVICES=0")  # fmt: skip
    if arguments.task.streaming and (training.max_steps < 1 or arguments.merge.merge_every):
        wrong = "leave --merge_every out" if arguments.merge.merge_every else "give --max_steps"
        raise ValueError(f"--streaming makes pairs without an end, so nobody knows how long an epoch is: {wrong}")
    set_seed(training.seed)
    method = build_method(_with_first_mask(arguments), training.seed)
    with training.main_process_first(desc="loading the task"):
        task = load_task(arguments.task, arguments.model, training.seed, training.do_predict)
    _default_best_metric(training, task)
    guard = SaveOnSignal()
    trainer = _trainer(arguments, method, task, guard)
    deltas = _deltas(trainer, training, bool(arguments.merge.merge_every))
    merged = MergedTraining(trainer, arguments.merge) if arguments.merge.merge_every else None
    if checkpoint is None:
        method.check(task.model, task.head, trainer.num_steps)
    if checkpoint is None and training.should_save:
        run_folder.clear(folder, given, (DIFF_FILE, GATES_FILE, PATTERNS))
    seconds = _train_merged(merged, guard, checkpoint) if merged else _train(trainer, guard, checkpoint)
    if training.should_save:
        (merged or trainer).sparse_diff().save_pretrained(folder)
    metrics = _evaluate(trainer, task)
    _write_predictions(trainer, task, folder)
    result = result_of(arguments, given, task, trainer, metrics, seconds, command)
    if merged:
        result = replace(result, communication=merged.communication())
    if deltas and training.should_save:
        result = replace(result, checkpoints=deltas.facts())
    if training.should_save:
        _write(result, task, folder, training.save_model)
    return result


def _trainer(arguments: Arguments, method: SparseMethod, task: Task, guard: SaveOnSignal) -> SparseTrainer:
    training = arguments.training
    needed = training.per_device_train_batch_size * training.world_size
    if training.dataloader_drop_last and not arguments.task.streaming and len(task.train) < needed:
        raise ValueError(f"{len(task.train)} training examples do not fill a batch of {needed}, and with "
                         "--dataloader_drop_last nothing is left: lower --per_device_train_batch_size")  # fmt: skip
    if arguments.task.streaming and training.dataloader_num_workers > 1:
        raise ValueError("--streaming makes its pairs one after the other: give --dataloader_num_workers 0 or 1")
    return SparseTrainer(
        task.model,  # pyright: ignore[reportArgumentType]
        training,
        method=method,
        head=task.head,
        info=info_of(arguments, task),
        train_dataset=task.train,
        eval_dataset=task.evals,  # pyright: ignore[reportArgumentType]
        data_collator=task.collate,
        compute_metrics=task.metrics,
        callbacks=[guard],
    )


def _write(result: Result, task: Task, folder: Path, with_model: bool) -> None:
    """The ordinary model where it is wanted, and the result, which comes last and says that all is there."""
    if with_model:
        pruned_model.write(task.model, task.tokenizer, folder / "model")
    results.write(result, folder)


def _with_first_mask(arguments: Arguments) -> MethodArguments:
    """The method's arguments, with the first mask of a sparse network random where its weights are."""
    method, model = arguments.method, arguments.model
    name = sources.base_name(model.model or "", arguments.training.seed, model.from_scratch)
    is_random = vision.is_scratch(name) or sources.scratch_of(name)[1] is not None
    for flag in ("variance", "weight_init"):
        if getattr(method, flag) and not is_random:
            raise ValueError(f"--{flag} is for random weights; pretrained ones keep theirs: leave it out")
    if method.method in SPARSE and method.start_mask is None and is_random:
        return replace(method, start_mask="random")
    return method


def _scales_rate(arguments: Arguments) -> bool:
    """Whether --learning_rate is the dense network's, of which a sparse one takes a multiple."""
    method, asked = arguments.method, arguments.method.scale_learning_rate
    return method.method in SPARSE and (arguments.task.task == "masked_lm" if asked is None else asked)


def _with_scaled_rate(arguments: Arguments) -> Arguments:
    """The same with the sparse network's learning rate, by equation 3 of Dietrich et al. (2021)."""
    training, sparsity = copy(arguments.training), 1 - arguments.method.density
    training.learning_rate *= learning_rates.factor(sparsity)
    if training.should_save:
        print(f"learning rate {training.learning_rate:.4g}: {learning_rates.factor(sparsity):.3g} times the dense "
              f"network's {arguments.training.learning_rate:.4g}, for a sparsity of {sparsity:.4g} "
              "(--scale_learning_rate)")  # fmt: skip
    return replace(arguments, training=training)


def _deltas(trainer: SparseTrainer, training: RunArguments, merges: bool) -> DeltaCheckpoints | None:
    if not training.delta_checkpoints:
        return None
    if merges:
        raise ValueError("--delta_checkpoints is for a single run: leave --merge_every out")
    deltas = DeltaCheckpoints(trainer)
    trainer.add_callback(deltas)
    return deltas


def _default_best_metric(training: RunArguments, task: Task) -> None:
    if training.load_best_model_at_end and training.metric_for_best_model in (None, "loss"):
        training.metric_for_best_model = f"{next(iter(task.evals))}_{task.main_metric}"
        training.greater_is_better = not is_loss(task.main_metric)


def _train(trainer: SparseTrainer, guard: SaveOnSignal, checkpoint: str | None) -> dict[str, float]:
    started = time.perf_counter()
    if checkpoint is None:
        trainer.choose()
        masks = current_masks(trainer.network)
        if masks and trainer.method.inactive == "zero" and trainer.args.should_save:
            print(analysis.of_masks(masks, cost_of(trainer.network).num_entries))
    chosen = time.perf_counter()
    with guard if trainer.args.world_size == 1 else nullcontext():
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        except RuntimeError as error:  # how torch.save reports a full disk
            if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
                raise
            raise OSError(f"cannot write a checkpoint to {trainer.args.output_dir}: is the disk full?") from error
    _raise_if_interrupted(trainer, guard)
    return {"choose": chosen - started, "train": time.perf_counter() - chosen}


def _raise_if_interrupted(trainer: SparseTrainer, guard: SaveOnSignal) -> None:
    if guard.received and trainer.state.global_step < trainer.state.max_steps:
        folder = trainer.args.output_dir
        raise Interrupted(f"stopped after step {trainer.state.global_step}; to go on, repeat the command with "
                          f"--resume_from_checkpoint last (checkpoint in {folder})")  # fmt: skip


def _train_merged(merged: MergedTraining, guard: SaveOnSignal, checkpoint: str | None) -> dict[str, float]:
    started, trainer = time.perf_counter(), merged.trainer
    with guard if trainer.args.world_size == 1 else nullcontext():
        merged.run(checkpoint, lambda: guard.received)
    _raise_if_interrupted(trainer, guard)
    return {"choose": 0.0, "train": time.perf_counter() - started}


def _evaluate(trainer: SparseTrainer, task: Task) -> dict[str, dict[str, float]]:
    """Metrics of the final model on every split; those logged at the last step are not computed again."""
    found = {}
    for split, data in task.evals.items():
        prefix = f"eval_{split}"
        logged = [log for log in trainer.state.log_history if f"{prefix}_loss" in log]
        current = logged and logged[-1]["step"] == trainer.state.global_step
        if current and not trainer.args.load_best_model_at_end:
            values = logged[-1]
        else:
            values = trainer.evaluate(data, metric_key_prefix=prefix)  # pyright: ignore[reportArgumentType]
        timing = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
        named = {k.removeprefix(f"{prefix}_"): float(v) for k, v in values.items() if k.startswith(prefix)}
        found[split] = {k: v for k, v in named.items() if k not in timing}
    return found


def _write_predictions(trainer: SparseTrainer, task: Task, folder: Path) -> None:
    for split, data in task.tests.items():
        outputs: Any = trainer.predict(data).predictions  # pyright: ignore[reportArgumentType]
        if trainer.args.should_save and task.write_predictions:
            print(f"predictions: {task.write_predictions(split, outputs, folder / 'predictions')}")


def main(description: str, config: Path) -> None:
    """One run from the command line; a problem the user can mend ends it with one sentence."""
    with one_sentence(status=2):
        arguments = parse(sys.argv[1:], description, config)
    with one_sentence():
        result = run(arguments, " ".join(sys.argv))
    if arguments.training.should_save:
        print(summary(result, str(arguments.training.output_dir)))
