"""run(arguments) -> Result: the straight line that every experiment follows."""

import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from transformers import set_seed

from glue_sparse import results
from glue_sparse.arguments import Arguments, RunArguments, parse
from glue_sparse.commands import Interrupted, one_sentence
from glue_sparse.cost import cost_of
from glue_sparse.diff import FILE_NAME as DIFF_FILE
from glue_sparse.diff import DiffInfo, SparseDiff
from glue_sparse.interrupt import SaveOnSignal
from glue_sparse.methods import WITH_DENSITY, build_method
from glue_sparse.results import Result
from glue_sparse.tasks import load_task
from glue_sparse.tasks.base import Task
from glue_sparse.trainer import SparseTrainer


def run(arguments: Arguments, command: str = "") -> Result:
    """Load the task, build the method, train, evaluate, write.

    Raises:
        ValueError: anything the user can mend, before training starts.
        Interrupted: stopped by a signal, after a checkpoint was saved.
    """
    training = arguments.training
    folder = Path(training.output_dir or ".")
    with training.main_process_first(local=False, desc="claiming the output folder"):
        checkpoint = _claim(folder, training)
        if checkpoint:
            _check_same_run(checkpoint, arguments)
    set_seed(training.seed)
    method = build_method(arguments.method, training.seed)
    with training.main_process_first(desc="loading the task"):
        task = load_task(arguments.task, arguments.model, training.seed, training.do_predict)
    _default_best_metric(training, task)
    guard = SaveOnSignal()
    trainer = SparseTrainer(
        task.model,  # pyright: ignore[reportArgumentType]
        training,
        method=method,
        head=task.head,
        info=_info(arguments, task),
        train_dataset=task.train,
        eval_dataset=task.evals,  # pyright: ignore[reportArgumentType]
        data_collator=task.collate,
        compute_metrics=task.metrics,
        callbacks=[guard],
    )
    if checkpoint is None and training.should_save:
        _clear(folder)
    seconds = _train(trainer, guard, checkpoint)
    metrics = _evaluate(trainer, task)
    _write_predictions(trainer, task, folder)
    result = _result(arguments, task, trainer, metrics, seconds, command)
    if training.should_save:
        results.write(result, folder)
    return result


def _claim(folder: Path, training: RunArguments) -> str | None:
    """Make sure that the folder is this run's own; returns the checkpoint to resume from, if any."""
    if training.process_index > 0:
        return _checkpoint(folder, training)
    replace = training.overwrite and not training.resume_from_checkpoint
    if (folder / results.FILE_NAME).exists() and not replace:
        raise ValueError(f"{folder} holds a finished run: add --overwrite to replace it, or give another --output_dir")
    checkpoint = _checkpoint(folder, training)
    if checkpoint is None and any(folder.glob("checkpoint-*")) and not replace:
        raise ValueError(
            f"{folder} holds an unfinished run: continue it with --resume_from_checkpoint last, or add --overwrite"
        )
    try:
        results.write_text(folder / "command.txt", " ".join(sys.argv) + "\n")
    except OSError as error:
        raise ValueError(f"cannot write to --output_dir {folder}: {error.strerror}") from error
    return checkpoint


def _clear(folder: Path) -> None:
    """Delete what an earlier run left; done last before training, so that bad input costs nothing."""
    for path in [folder / results.FILE_NAME, folder / DIFF_FILE, folder / "predictions", *folder.glob("checkpoint-*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _checkpoint(folder: Path, training: RunArguments) -> str | None:
    wanted = training.resume_from_checkpoint
    if wanted not in ("last", "true", "True"):
        if wanted and not Path(wanted, "trainer_state.json").is_file():
            raise ValueError(f"--resume_from_checkpoint {wanted} is not a checkpoint; say `last` for the latest one")
        return wanted
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]  # the file written last
    if not whole:
        raise ValueError(f"{folder} holds no complete checkpoint to resume from: give --overwrite instead")
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2])))


def _check_same_run(checkpoint: str, arguments: Arguments) -> None:
    was, now = SparseDiff.from_pretrained(checkpoint).info, _info(arguments, None)
    for key in ("base_model", "task", "method", "density"):
        if getattr(was, key) != getattr(now, key):
            raise ValueError(
                f"the checkpoint was made with {key} {getattr(was, key)}, not {getattr(now, key)}: resume with the "
                "same arguments, or choose another --output_dir"
            )


def _info(arguments: Arguments, task: Task | None) -> DiffInfo:
    method = arguments.method
    return DiffInfo(
        base_model=arguments.model.model or "",
        task=arguments.task.task or "",
        method=method.method,
        density=method.density if method.method in WITH_DENSITY else None,
        labels=task.labels if task else (),
    )


def _default_best_metric(training: RunArguments, task: Task) -> None:
    if training.load_best_model_at_end and training.metric_for_best_model in (None, "loss"):
        training.metric_for_best_model = f"{next(iter(task.evals))}_{task.main_metric}"
        training.greater_is_better = True


def _train(trainer: SparseTrainer, guard: SaveOnSignal, checkpoint: str | None) -> dict[str, float]:
    started = time.perf_counter()
    if checkpoint is None:
        trainer.choose()
    chosen = time.perf_counter()
    with guard if trainer.args.world_size == 1 else nullcontext():
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        except RuntimeError as error:  # how torch.save reports a full disk
            if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
                raise
            raise OSError(f"cannot write a checkpoint to {trainer.args.output_dir}: is the disk full?") from error
    if guard.received and trainer.state.global_step < trainer.state.max_steps:
        folder = trainer.args.output_dir
        raise Interrupted(f"stopped after step {trainer.state.global_step}; to go on, repeat the command with "
                          f"--resume_from_checkpoint last (checkpoint in {folder})")  # fmt: skip
    if trainer.args.should_save:
        trainer.sparse_diff().save_pretrained(str(trainer.args.output_dir))
    return {"choose": chosen - started, "train": time.perf_counter() - chosen}


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


def _result(
    arguments: Arguments,
    task: Task,
    trainer: SparseTrainer,
    metrics: dict[str, dict[str, float]],
    seconds: dict[str, float],
    command: str,
) -> Result:
    stored = Path(str(trainer.args.output_dir), DIFF_FILE)
    cost = cost_of(trainer.network, stored.stat().st_size if stored.exists() else 0)
    info = _info(arguments, task)
    given = {k: v for k, v in arguments.given.items() if k not in ("output_dir", "resume_from_checkpoint", "overwrite")}
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
        cost={**asdict(cost), "trainable": cost.trainable, "density": cost.density},
        seconds=seconds,
        source=task.source,
        arguments={**given, "world_size": arguments.training.world_size},
        command=command,
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        versions=results.installed_versions(),
    )


def summary(result: Result, folder: str) -> str:
    """A few lines for the end of a run."""
    cost = result.cost
    scores = ", ".join(f"{split} {m[result.main_metric]:.4f}" for split, m in result.metrics.items())
    return (
        f"{result.title} | {result.method} | {result.main_metric}: {scores}\n"
        f"trained {cost['trainable']:,} of {cost['num_entries']:,} weights ({cost['density']:.3%}), "
        f"stored {cost['stored_bytes']:,} bytes, {result.seconds['train']:.0f} s\n"
        f"results: {folder}/{results.FILE_NAME}   diff: {folder}/{DIFF_FILE}"
    )


def main(description: str, config: Path) -> None:
    """One run from the command line; a problem the user can mend ends it with one sentence."""
    with one_sentence(status=2):
        arguments = parse(sys.argv[1:], description, config)
    with one_sentence():
        result = run(arguments, " ".join(sys.argv))
    if arguments.training.should_save:
        print(summary(result, str(arguments.training.output_dir)))
