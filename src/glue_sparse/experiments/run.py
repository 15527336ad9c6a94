"""run(arguments) -> Result: the straight line that every experiment follows."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from transformers import set_seed

from glue_sparse.analysis.density import of_masks
from glue_sparse.arguments.run import Arguments
from glue_sparse.arguments.training import RunArguments
from glue_sparse.core import ranks
from glue_sparse.core.active import current_masks
from glue_sparse.core.content import fact
from glue_sparse.costs.cost import cost_of
from glue_sparse.diffs import card, pruned_model
from glue_sparse.diffs.card import Contents
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import FILE_NAME as DIFF_FILE
from glue_sparse.experiments import evaluation, inputs, tracking
from glue_sparse.experiments.cards import measured
from glue_sparse.experiments.outcome import info_of, result_of
from glue_sparse.experiments.settle import Settled, settings, settle
from glue_sparse.methods import registry as methods
from glue_sparse.records import checkpoints, results
from glue_sparse.records import folder as run_folder
from glue_sparse.records.results import Result
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.registry import load_task
from glue_sparse.training.begun import Begun
from glue_sparse.training.delta_checkpoints import DeltaCheckpoints
from glue_sparse.training.divergence import Diverged
from glue_sparse.training.interrupt import SaveOnSignal
from glue_sparse.training.merging.merge import MergedTraining
from glue_sparse.training.trainer import SparseTrainer
from glue_sparse.writing import aside, words
from glue_sparse.writing.ending import keeping


class Training(Protocol):
    """What a run needs of its training, whether one model trains or several workers do."""

    def start(self, checkpoint: str | None) -> None:
        """Choose the active entries, or take them from a checkpoint."""

    def fit(self, checkpoint: str | None, interrupted: Callable[[], bool]) -> None:
        """Train to the end, or until `interrupted` says to save and stop."""

    def sparse_diff(self) -> SparseDiff:
        """What has been trained."""
        ...

    def facts(self) -> dict[str, Any]:
        """Fields of `Result` that only this kind of training knows; all ranks call it."""
        ...


def run(arguments: Arguments, command: str = "") -> Result:
    """Load the task, build the method, train, evaluate, write.

    Raises:
        ValueError: anything the user can mend, before training starts.
        OSError: also where another process of the run has ended.
        Interrupted: stopped by a signal; the message says what is kept and how to go on.
    """
    with ranks.all_alive():
        return _claim_and_run(arguments, command)


def _claim_and_run(arguments: Arguments, command: str) -> Result:
    training = arguments.training
    folder = Path(training.output_dir or ".")
    given, finished = ranks.in_turns(lambda: _look(arguments, folder))
    ranks.check_same({"finished result": fact(finished is not None)})
    if finished is not None:
        return finished
    with ExitStack() as stack:
        checkpoint = ranks.in_turns(lambda: stack.enter_context(run_folder.claimed(training, given)))
        with ranks.together():  # a process that was at work here may have finished meanwhile
            finished = _finished(training, given, folder)
        ranks.check_same({"checkpoint": fact(checkpoint and Path(checkpoint).name), "finished": fact(bool(finished))})
        if finished is not None:
            return finished
        unchanged = f"stopped before training, with nothing changed in {folder}: the same command starts again"
        with keeping(lambda: _kept(folder) if checkpoint else unchanged):
            with ranks.together():
                if checkpoint is None:
                    _check_own_card(folder)
                settled = stack.enter_context(tracking.told(settle(arguments)))
            return _run(settled, given, folder, checkpoint, command)


def _check_own_card(folder: Path) -> None:
    """Refuse to replace a model whose card is someone's own."""
    if card.is_foreign(model := folder / "model"):
        raise ValueError(f"{words.shortened(model)} holds your own README.md: move it away, or change `output_dir`")


def _look(arguments: Arguments, folder: Path) -> tuple[dict[str, Any], Result | None]:
    """The run's settings, and the result that is there already; refuses a run that would replace what it reads."""
    aside.mend(folder)
    given = settings(arguments)
    finished = _finished(arguments.training, given, folder)
    if finished is None:
        inputs.check(arguments, folder, _leavings(folder))
    return given, finished


def _finished(training: RunArguments, given: dict[str, Any], folder: Path) -> Result | None:
    """The result that is there already, where the run is to go on by itself."""
    if training.resume_from_checkpoint != "auto" or not (folder / results.FILE_NAME).exists():
        return None
    finished = results.read(folder / results.FILE_NAME)
    results.check_same_settings(folder, finished.arguments, given)
    if training.save_model and not (folder / "model").exists() and training.should_save:
        print(f"the run is finished; for its model: {words.command(f'diff apply {folder} {folder}/model')}")
    return finished


def _run(settled: Settled, given: dict[str, Any], folder: Path, checkpoint: str | None, command: str) -> Result:
    arguments, args = settled.arguments, settled.training
    set_seed(args.seed)
    with ranks.together():
        method = methods.build_method(settled.method, args.seed)
    task = ranks.in_turns(partial(load_task, arguments.task, arguments.model, args.seed, args.do_predict))
    with ranks.together():
        evaluation.check_labels(args, task)
        evaluation.settle_metric(args, arguments.values, task)
        guard = SaveOnSignal()
        trainer = _trainer(settled, method, task)
        deltas = _deltas(trainer) if args.delta_checkpoints else None
        trainer.add_callback(guard)
        training = _training(arguments, trainer)
        if checkpoint is None:
            method.check(task.model, task.head, trainer.num_steps)
    trainer.agreement.check()
    with keeping(lambda: _kept(folder)):
        with ranks.together():
            if args.should_save and checkpoint is None:
                aside.move(folder, _leavings(folder))
            if args.should_save:
                run_folder.note_run(folder, given)
        with _noting_divergence(folder, args.should_save):
            seconds = _train(training, trainer, guard, checkpoint, folder)
            contents = _save_diff(training, folder) if args.should_save else None
            metrics = _evaluate(trainer, task)
            _check_metrics(metrics, folder)
        _write_predictions(trainer, task, folder)
        result = replace(result_of(arguments, given, task, trainer, metrics, seconds, command), **training.facts())
        if deltas and args.should_save:
            result = replace(result, checkpoints=deltas.facts())
        if contents:
            _write(result, task, folder, args.save_model, contents)
    return result


def _kept(folder: Path) -> str:
    """What a stopped run leaves, and how it goes on."""
    if (folder / results.FILE_NAME).exists():
        return f"stopped when the run was finished; its results are in {folder}"
    if aside.holds_a_run(folder):
        return f"stopped before the first step, so the earlier run is back in {folder}: the same command starts again"
    if complete := checkpoints.complete(folder):
        step = complete[-1].name.rpartition("-")[2]
        return (f"stopped; to go on after step {step}, repeat the command with `resume_from_checkpoint` last "
                f"(checkpoint in {folder})")  # fmt: skip
    begun = any(folder.glob("checkpoint-*"))
    again = "to start again, repeat the command with `overwrite`" if begun else "the same command starts again"
    return f"stopped before a checkpoint was complete, so there is nothing to go on from: {again}"


def _leavings(folder: Path) -> set[str]:
    """Names of what runs of any method leave in their folder; a README.md of the user's own is no run's."""
    cards = {card.FILE_NAME} if card.is_ours(folder) else set()
    return run_folder.patterns({DIFF_FILE, *cards, *(name for one in methods.known().values() for name in one.leaves)})


@contextmanager
def _noting_divergence(folder: Path, writes: bool) -> Iterator[None]:
    """A run that diverges leaves a note instead of a result, so that a grid does not try it again."""
    if writes:
        (folder / run_folder.DIVERGED).unlink(missing_ok=True)
    try:
        yield
    except Diverged as error:
        if writes:
            aside.drop(folder)  # with these settings it has begun, and this is how it ended
            run_folder.mark_diverged(folder, str(error))
        raise


def _trainer(settled: Settled, method: Any, task: Task) -> SparseTrainer:
    args, streaming = settled.training, settled.arguments.task.streaming
    needed = args.per_device_train_batch_size * args.world_size
    if args.dataloader_drop_last and not streaming and len(task.train) < needed:
        raise ValueError(f"{len(task.train)} training examples do not fill a batch of {needed}, and with "
                         "`dataloader_drop_last` nothing is left: lower `per_device_train_batch_size`")  # fmt: skip
    trainer = SparseTrainer(
        task.model,  # pyright: ignore[reportArgumentType]
        args,
        method=method,
        head=task.head,
        info=info_of(settled.arguments, task),
        train_dataset=task.train,
        eval_dataset=task.evals,  # pyright: ignore[reportArgumentType]
        data_collator=task.collate,
        compute_metrics=task.metrics,
        preprocess_logits_for_metrics=task.preprocess_logits_for_metrics,
    )
    trainer.agreement.splits.update(task.tests)
    return trainer


def _training(arguments: Arguments, trainer: SparseTrainer) -> Training:
    """One model, or workers that merge."""
    return MergedTraining(trainer, arguments.merge) if arguments.merge.merge_every else trainer


def _deltas(trainer: SparseTrainer) -> DeltaCheckpoints:
    deltas = DeltaCheckpoints(trainer)
    trainer.add_callback(deltas)
    return deltas


def _save_diff(training: Training, folder: Path) -> Contents:
    """The diff with a card that has no metrics yet."""
    aside.drop(folder)  # where there was no step to train
    diff = training.sparse_diff()
    diff.save_pretrained(folder)
    return diff.contents


def _write(result: Result, task: Task, folder: Path, with_model: bool, contents: Contents) -> None:
    """The ordinary model where it is wanted, cards, and the result, which comes last and says that all is there."""
    found = measured(result)
    if with_model:
        pruned_model.write(task.model, task.tokenizer, folder / "model", contents.info, found)
    card.write(card.of_diff(contents, card.place_of(folder), found), folder)
    results.write(result, folder)


def _train(
    training: Training, trainer: SparseTrainer, guard: SaveOnSignal, checkpoint: str | None, folder: Path
) -> dict[str, float]:
    """Choose and train; seconds of both. After the first step an earlier run that stands aside is deleted."""
    started, args = time.perf_counter(), trainer.args
    trainer.add_callback(begun := Begun(lambda: aside.drop(folder) if args.should_save else None))
    training.start(checkpoint)
    prunes = checkpoint is None and trainer.method.inactive == "zero" and args.should_save
    if prunes and (masks := current_masks(trainer.network)):
        print(of_masks(masks, cost_of(trainer.network).num_entries))
    chosen = time.perf_counter()
    with guard:
        try:
            training.fit(checkpoint, lambda: begun() or guard.asked())
        except RuntimeError as error:  # how torch.save reports a full disk
            if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
                raise
            raise OSError(f"cannot write a checkpoint to {args.output_dir}: is the disk full?") from error
    guard.stop()
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
        numbers = {k: math.nan if v is None else float(v) for k, v in values.items() if k.startswith(prefix)}
        named = {k.removeprefix(f"{prefix}_"): v for k, v in numbers.items()}
        found[split] = {k: v for k, v in named.items() if k not in timing}
    return found


def _check_metrics(metrics: dict[str, dict[str, float]], folder: Path) -> None:
    """Undefined correlations are 0 by definition (`tasks/metrics.py`), so a number that is not finite is no metric."""
    for split, named in metrics.items():
        for name, value in named.items():
            if not math.isfinite(value):
                raise Diverged(f"the {name} of {split} is {value}, so there is no result: the model's outputs have "
                                 f"overflown, lower `learning_rate` (what has trained is in {folder})")  # fmt: skip


def _write_predictions(trainer: SparseTrainer, task: Task, folder: Path) -> None:
    for split, data in task.tests.items():
        outputs: Any = trainer.predict(data).predictions  # pyright: ignore[reportArgumentType]
        if trainer.args.should_save and task.write_predictions:
            print(f"predictions: {task.write_predictions(split, outputs, folder / 'predictions')}")
