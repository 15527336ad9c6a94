"""By which scores a run is judged while it trains, and settings of its evaluation that cannot be honoured."""

import inspect
from collections.abc import Mapping
from typing import Any

from transformers.trainer_utils import SaveStrategy

from glue_sparse.arguments.training import RunArguments
from glue_sparse.records.scales import scale_of
from glue_sparse.tasks.base import Task
from glue_sparse.training.probes import BY_SCORE


def check_settings(args: RunArguments) -> None:
    """Raise a ValueError for a setting under which a task could not score itself."""
    if not args.eval_do_concat_batches:
        raise ValueError("`eval_do_concat_batches` false hands scores over in pieces, and a task is scored as a whole: "
                         "leave it out")  # fmt: skip
    if args.batch_eval_metrics:
        raise ValueError("`batch_eval_metrics` scores batch by batch, and a task is scored as a whole: leave it out")
    if args.debug:
        raise ValueError("`debug` asks every tensor for its extremes, and tensors without active entries have none: "
                         "leave it out")  # fmt: skip
    if args.include_for_metrics:
        raise ValueError("`include_for_metrics` hands more to a metric, and a task's takes predictions and labels "
                         "alone: leave it out")  # fmt: skip
    if args.prediction_loss_only:
        raise ValueError("`prediction_loss_only` leaves a run without its scores: leave it out")


def check_labels(args: RunArguments, task: Task) -> None:
    """Raise a ValueError for smoothed labels where there are no classes, and for names that the model does not take."""
    if args.label_smoothing_factor and not task.labels:
        raise ValueError(f"`label_smoothing_factor` is for classes, which `task` {task.name} does not have: leave it "
                         "out")  # fmt: skip
    _check_lengths(args, task)
    taken = inspect.signature(task.model.forward).parameters
    unknown = [name for name in args.label_names or () if name not in taken]
    if unknown:
        raise ValueError(f"the model takes no {unknown[0]}, so it would not be scored: leave `label_names` out")


def _check_lengths(args: RunArguments, task: Task) -> None:
    """Raise a ValueError where examples are to be grouped by a length that they do not have."""
    if args.train_sampling_strategy != "group_by_length":
        return
    columns = getattr(task.train, "column_names", None) or ()
    if args.length_column_name not in {*columns, "length"}:
        raise ValueError(f"the training data has no column {args.length_column_name!r:.60}, as `length_column_name` "
                         "says: leave it out")  # fmt: skip
    if "input_ids" not in columns and args.length_column_name not in columns:
        raise ValueError(f"`train_sampling_strategy` group_by_length is for texts, and `task` {task.name} gives no "
                         "length of its examples: leave it out")  # fmt: skip


def settle_metric(args: RunArguments, told: Mapping[str, Any], task: Task) -> None:
    """Name the score that chooses the best model, or steers the learning rate, as the Trainer will find it.

    By default it is the task's main metric, for a learning rate alone the loss, on the first validation split.

    Args:
        told: the values of `metric_for_best_model` and `greater_is_better` as they were given; transformers has put
            defaults of its own into `args`.
    Raises:
        ValueError: no score of this name, or one of each of several splits.
    """
    asked, steers = told.get("metric_for_best_model"), args.lr_scheduler_type in BY_SCORE
    chooses = args.load_best_model_at_end or args.save_strategy == SaveStrategy.BEST
    if asked is None and not chooses and not steers:
        return
    if asked is None:
        metric = f"{next(iter(task.evals))}_{task.main_metric if chooses else 'loss'}"
    else:
        metric = _named(asked, task)
    args.metric_for_best_model = metric
    if told.get("greater_is_better") is None:
        args.greater_is_better = not scale_of(metric).smaller_is_better
    if steers and args.greater_is_better:
        given: Any = args.lr_scheduler_kwargs
        args.lr_scheduler_kwargs = {"mode": "max", **(given or {})}


def _named(asked: str, task: Task) -> str:
    """`accuracy`, `validation_accuracy` or either with `eval_` before it, as split and metric."""
    name, metrics = asked.removeprefix("eval_"), ("loss", *(task.metric_names or (task.main_metric,)))
    scores = [f"{split}_{metric}" for split in task.evals for metric in metrics]
    if name in metrics and len(task.evals) == 1:
        return f"{next(iter(task.evals))}_{name}"
    if name not in scores:
        fault = "is one of each validation split" if name in metrics else "does not exist"
        raise ValueError(f"a score {asked} {fault}: as `metric_for_best_model` give one of {', '.join(scores)}")
    return name
