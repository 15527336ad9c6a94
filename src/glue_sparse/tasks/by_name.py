"""load_task for programs: a task by its name and keywords, where the command line has flags."""

import os
from typing import Any

from glue_sparse.arguments.flags import Flag, check_needs, flags_of
from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks import registry
from glue_sparse.tasks.base import Task
from glue_sparse.writing.bounds import SEED, check
from glue_sparse.writing.fields import typed
from glue_sparse.writing.words import check_one_of

_PREDICT = Flag("do_predict", "Task", bool, False)


def load_task(
    task: str, *, model: str | os.PathLike[str], seed: int = 0, do_predict: bool = False, **flags: Any
) -> Task:
    """Data, model with a new head, collator and metrics of a task, for a `Trainer` or a loop of your own.

        task = load_task("tweets", model="minilm", max_train_samples=1000)
        task = load_task("file", model="minilm", train_file="my.csv", validation_file="my_dev.csv")

    Its parts go into a Trainer by their names: `task.model`, `train_dataset=task.train`, `eval_dataset=task.evals`,
    `data_collator=task.collate`, `compute_metrics=task.metrics`, and with language models, which keep no logits,
    `preprocess_logits_for_metrics=task.preprocess_logits_for_metrics`.

    Args:
        task: a name that `glue-sparse train --task` knows, `tweets` for instance.
        model: hub id, folder, or `minilm`, which the `offline` extra brings.
        seed: of the new head, and of the examples that `max_train_samples` draws.
        do_predict: whether to load unlabelled test splits too (`task.tests`).
        **flags: what `glue-sparse train --help_all` says of task and model, by name.
    Raises:
        ValueError: an unknown task or flag (with the closest), flags that contradict each other or are of a wrong
            type, or data or model not to be had.
    """
    record = registry.find(task)
    groups = [TaskArguments, ModelArguments, *([record.own] if record.own else [])]
    check("seed", seed, SEED, int)
    given: dict[str, Any] = {**flags, "task": task, "model": model}
    given = {name: os.fspath(one) if isinstance(one, os.PathLike) else one for name, one in given.items()}
    told, asked, *own = _as_told(groups, given, do_predict)
    told.own = own[0] if own else None
    loaded = registry.load_task(told, asked, seed, do_predict)
    config: Any = getattr(loaded.model, "config", None)
    if config is not None:  # what a diff names as its base, in the place of an installed wheel's folder
        config._name_or_path = loaded.base_model or given["model"]
    return loaded


def _as_told(groups: list[type], given: dict[str, Any], do_predict: bool) -> list[Any]:
    """Each group of flags with its values, of the right types; raises as `load_task`."""
    group_of = {flag.name: group for group in groups for flag in flags_of(group)}
    for name in given:
        check_one_of("flag", name, group_of, otherwise="see `glue-sparse train --help`")
    known = {flag.name: flag for group in groups for flag in flags_of(group)} | {"do_predict": _PREDICT}
    values = {**{name: flag.default for name, flag in known.items()}, **given, "do_predict": do_predict}
    check_needs(known, values, given)
    parts = [{name: one for name, one in given.items() if group_of[name] is group} for group in groups]
    return [typed(group, part, "what `load_task` is told") for group, part in zip(groups, parts, strict=True)]
