"""Tasks by name."""

from collections.abc import Callable

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.models.bert_family import is_member
from glue_sparse.models.sources import scratch_of
from glue_sparse.models.vision import SCRATCH, is_scratch
from glue_sparse.tasks import cifar10, files, glue, tweets
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.pretraining import task as masked_lm
from glue_sparse.tasks.squad import task as squad
from glue_sparse.writing.words import check_one_of

Loader = Callable[[str, TaskArguments, ModelArguments, int, bool], Task]
"""(name, task arguments, model arguments, seed, whether to predict test splits) -> task."""

TASKS: dict[str, Loader] = {
    **dict.fromkeys(glue.GLUE, glue.load),
    "squad": squad.load,
    "tweets": tweets.load,
    "cifar10": cifar10.load,
    "masked_lm": masked_lm.load,
    "file": files.load,
}

NO_FOLDER = ("tweets", "file")
"""Tasks that --data_dir says nothing about."""

PRETRAINING = ("hub_dataset", "streaming", "tokenizer", "vocab_size")
"""Flags of masked_lm alone."""


def check_task(name: str | None) -> None:
    """Raise a ValueError for a task that is missing or does not exist."""
    if name is None:
        raise ValueError(f"a task is missing ({', '.join(TASKS)}); your own --train_file needs --task file")
    check_one_of("task", name, TASKS)


def load_task(task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
    """The task that the arguments describe.

    Raises:
        ValueError: an unknown task, arguments that contradict each other, or data or model not to be had.
    """
    check_task(task.task)
    assert task.task is not None
    own = [name for name in ("train_file", "validation_file", "test_file") if getattr(task, name) is not None]
    if own and task.task != "file" and (task.task != "masked_lm" or own[-1] == "test_file"):
        raise ValueError(f"--{own[0]} goes with --task file, not with --task {task.task}")
    if task.data_dir is not None and task.task in NO_FOLDER:
        raise ValueError(
            f"--data_dir is a folder of GLUE's, SQuAD's or CIFAR-10's files, which --task {task.task} does not read"
        )
    if task.hold_out and task.task != "cifar10":
        raise ValueError(f"--hold_out goes with --task cifar10, not with --task {task.task}")
    of_text = [name for name in PRETRAINING if getattr(task, name) != getattr(TaskArguments(), name)]
    if of_text and task.task != "masked_lm":
        raise ValueError(f"--{of_text[0]} goes with --task masked_lm, not with --task {task.task}")
    if model.model is None:
        raise ValueError("a model is missing: give --model a hub id, a folder, or minilm")
    if is_member(scratch_of(model.model)[0]) and task.task == "cifar10":
        raise ValueError(f"{model.model} is a model for text; --task cifar10 needs one for images, such as resnet9")
    if is_scratch(model.model) and task.task != "cifar10":
        raise ValueError(f"{', '.join(SCRATCH)} are networks for images; --task {task.task} needs a model for text")
    return TASKS[task.task](task.task, task, model, seed, do_predict)
