"""Evaluation of causal language models by EleutherAI's lm-evaluation-harness, on models that are in memory.

The tasks, prompts and metrics are the harness's (https://github.com/EleutherAI/lm-evaluation-harness); of ours are what
is handed to it and what is read of its answer.
"""

import logging
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from glue_sparse.writing.extras import needed
from glue_sparse.writing.sentences import sentence
from glue_sparse.writing.words import check_one_of

_WHAT = "an evaluation by lm_eval"
_ALONE = "DISABLE_MULTIPROC"
"""The harness's name in the environment for no other processes."""
_RESAMPLES = 1000
"""For errors of metrics that are no means: to 2 % of the error. The harness itself draws 100,000, in processes that are
forked, where locks of other threads, which torch and tokenizers have, may stay shut for ever."""


@dataclass(frozen=True)
class Metric:
    """One number of a task.

    Attributes:
        filter: of the answers, `none` for none of them.
        error: standard error; none where the harness knows none.
        higher_is_better: none where the harness does not say.
    """

    task: str
    name: str
    filter: str
    value: float
    error: float | None
    higher_is_better: bool | None


@dataclass(frozen=True)
class TaskFacts:
    """What was asked.

    Attributes:
        version: of the task's definition in the harness.
        num_fewshot: examples in each prompt.
        num_samples: questions that were asked.
        num_all: questions that the task has.
    """

    version: str
    num_fewshot: int | None
    num_samples: int | None
    num_all: int | None


@dataclass(frozen=True)
class Outcome:
    """What the harness found: numbers in its order, and facts by task."""

    metrics: list[Metric]
    tasks: dict[str, TaskFacts]


@dataclass(frozen=True)
class Asked:
    """How tasks are asked, by the harness's words.

    Attributes:
        num_fewshot: examples in each prompt; by default what the task says.
        limit: questions of each task, or below 1 the share of them; by default all.
        batch_size: a number, or `auto` or `auto:N` for the largest that fits, looked for N times.
        apply_chat_template: whether prompts are put into the tokenizer's.
        unsafe_code: whether tasks that run what the model has written may.
    """

    num_fewshot: int | None = None
    limit: float | None = None
    batch_size: str = "8"
    apply_chat_template: bool = False
    unsafe_code: bool = False


def version() -> str:
    """Of the harness; raises MissingExtra where it is not installed."""
    return str(needed("lm_eval", _WHAT, "eval").__version__)


def load_tasks(names: Collection[str], include_path: Path | None = None, unsafe_code: bool = False) -> list[Any]:
    """Tasks and groups of the harness with their data, by name, pattern (`mmlu_*`) or the path of a YAML file.

    Args:
        include_path: folder of YAML files with tasks of one's own, which may name Python functions to be run.
        unsafe_code: see `Asked`.
    Raises:
        MissingExtra: the harness is not installed.
        ValueError: an unknown task, one whose data or packages are not to be had, or one that runs unsafe code.
    """
    with _quiet():
        manager = _manager(names, include_path)
        found = [_loaded(manager, name) for one in names for name in _matching(manager, one)]
    tasks, groups = ({key: one for each in found for key, one in each.get(kind, {}).items()}
                     for kind in ("tasks", "groups"))  # fmt: skip
    for name, task in tasks.items():
        if getattr(task, "UNSAFE_CODE", False) and not unsafe_code:
            raise ValueError(f"task {name} runs what the model has written, which may do anything: give "
                             "`trust_remote_code` true if this machine may run it")  # fmt: skip
    inner = {child for each in found for children in each.get("group_map", {}).values() for child in children}
    return [one for name, one in {**groups, **tasks}.items() if name not in inner]


def evaluate(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tasks: list[Any], asked: Asked) -> Outcome:
    """Ask a model all questions of tasks, on the device that it is on; it is in eval mode afterwards.

    Args:
        network: a causal language model without active entries of its own, of any source.
        tasks: what `load_tasks` gave; they may be asked again.
    Raises:
        ValueError: the tokenizer has no chat template where one is to be applied.
    """
    if asked.apply_chat_template and not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template: leave `apply_chat_template` out")
    limit = int(asked.limit) if asked.limit is not None and asked.limit >= 1 else asked.limit
    wrapped = needed("lm_eval.models.huggingface", _WHAT, "eval").HFLM
    simple_evaluate = needed("lm_eval.evaluator", _WHAT, "eval").simple_evaluate
    manager = needed("lm_eval.tasks", _WHAT, "eval").TaskManager(include_defaults=False)  # the tasks are there already
    with _quiet():
        model = wrapped(pretrained=network, tokenizer=tokenizer, batch_size=asked.batch_size)
        with torch.inference_mode():
            found: dict[str, Any] = simple_evaluate(
                model=model, tasks=tasks, num_fewshot=asked.num_fewshot, limit=limit, log_samples=False,
                task_manager=manager, bootstrap_iters=_RESAMPLES, apply_chat_template=asked.apply_chat_template,
                confirm_run_unsafe_code=asked.unsafe_code,
            )  # fmt: skip
    return Outcome([*_metrics(found)], {name: _facts(found, name) for name in found["results"]})


def _manager(names: Collection[str], include_path: Path | None) -> Any:
    """That of the folder alone where it has all names as tasks: the harness takes seconds to read its own files."""
    kind = needed("lm_eval.tasks", _WHAT, "eval").TaskManager
    if include_path is None:
        return kind()
    own = kind(include_path=str(include_path), include_defaults=False)
    if all((found := own.match_tasks([name])) and {*found} <= {*own.all_subtasks} for name in names):
        return own
    return kind(include_path=str(include_path))


def _matching(manager: Any, name: str) -> list[str]:
    if Path(name).suffix in (".yaml", ".yml") and Path(name).is_file():
        return [name]
    if found := sorted(manager.match_tasks([name])):
        return found
    try:
        check_one_of("task", name, manager.all_tasks, "`lm_eval ls tasks` lists those of the harness")
    except ValueError as error:
        raise ValueError(f"{error}, and `include_path` names a folder of others") from None
    return [name]


def _loaded(manager: Any, name: str) -> dict[str, Any]:
    try:
        return manager.load([name])
    except Exception as error:  # of the harness, of datasets, of the hub's client, or of a task's own functions
        reason = sentence(next(iter(str(error).splitlines()), "") or type(error).__name__, 200)
        raise ValueError(f"task {name} cannot be loaded, so mend its definition, or make its data and packages "
                         f"available here ({reason})") from error  # fmt: skip


def _metrics(found: dict[str, Any]) -> Iterator[Metric]:
    """`acc,none` and `acc_stderr,none` are the number and its error; other entries are no numbers."""
    for task, told in found["results"].items():
        better = found.get("higher_is_better", {}).get(task) or {}
        for key, value in told.items():
            name, _, kind = key.partition(",")
            if kind and not name.endswith("_stderr") and isinstance(value, int | float):
                error = told.get(f"{name}_stderr,{kind}")
                known = float(error) if isinstance(error, int | float) else None
                yield Metric(task, name, kind, float(value), known, better.get(name))


def _facts(found: dict[str, Any], task: str) -> TaskFacts:
    samples = found.get("n-samples", {}).get(task) or {}
    shots = found.get("n-shot", {}).get(task)
    told = str(found.get("versions", {}).get(task))
    return TaskFacts(told, shots, samples.get("effective"), samples.get("original"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the harness says of its own ways, below errors, and keep it from forking processes."""
    logger = logging.getLogger("lm_eval")
    before, told = logger.level, os.environ.get(_ALONE)
    logger.setLevel(logging.ERROR)
    os.environ[_ALONE] = "1"
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(before)
        os.environ.pop(_ALONE)
        if told is not None:
            os.environ[_ALONE] = told
