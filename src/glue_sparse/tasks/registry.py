"""Tasks by name: what each is told, and where its loader is. Loads no torch until one is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from glue_sparse.arguments.flags import check_belongs, flags_of
from glue_sparse.arguments.groups import GLUE, ModelArguments, TaskArguments
from glue_sparse.arguments.registry import Registry, imported
from glue_sparse.models.names import RESNETS, is_resnet, is_size, scratch_of
from glue_sparse.models.strangers import trusted
from glue_sparse.tasks.language.flags import SftFlags

if TYPE_CHECKING:
    from glue_sparse.tasks.base import Task

Loader = Callable[[str, TaskArguments, ModelArguments, int, bool], "Task"]
"""(name, task arguments, model arguments, seed, whether to predict test splits) -> task.

One that understands `hold_out` says in the task's `source`, as `held_out`, how much it has held out.
"""


@dataclass(frozen=True)
class TaskRecord:
    """All that is known of a task before it is loaded.

    Attributes:
        load: a `Loader`, or the text `module:function` of one, which is imported when it is needed.
        help: a phrase for --help.
        inputs: what its models take.
        is_official: whether its metric stays the main one; else the first of `metric` takes its place.
        scales_learning_rate: whether a sparse network's learning rate is a multiple of the dense one's by default.
        needs: flags without which it has no data.
        takes: flags of other tasks that it understands.
        own: a dataclass of `arguments.flags.arg` fields, flags of its own; the loader finds them in `task.own`.
    """

    name: str
    load: Loader | str
    help: str = ""
    inputs: Literal["text", "images"] = "text"
    is_official: bool = True
    scales_learning_rate: bool = False
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    own: type | None = None


TASKS = Registry[TaskRecord]("task", "glue_sparse.tasks")
"""Those of this package, those of others by the entry point `glue_sparse.tasks`, and what is registered."""
known = TASKS.known


def register_task(task: TaskRecord) -> None:
    """Make a task known by its name, on the command line and in grids too.

    Args:
        task: its record. For processes of their own (grids) name it in an entry point, `glue_sparse.tasks`.
    Raises:
        ValueError: there is another of this name.
    """
    TASKS.register(task)


def find(name: str | None) -> TaskRecord:
    """A task by its name; ValueError where it is missing or does not exist."""
    if name is None:
        raise ValueError(f"a task is missing ({', '.join(known())}); your own `train_file` needs `task` file")
    return TASKS.find(name)


def check(task: TaskArguments, model: ModelArguments) -> TaskRecord:
    """The task that is meant; ValueError for flags that it would ignore, and for a model that it cannot train."""
    record = find(task.task)
    check_belongs(flags_of(TaskArguments), lambda flag: getattr(task, flag), "task", record.name, record.takes)
    check_belongs(flags_of(ModelArguments), lambda flag: getattr(model, flag), "task", record.name, record.takes)
    for flag in record.needs:
        if getattr(task, flag) is None:
            raise ValueError(f"`task` {record.name} needs `{flag}`")
    if model.model is None:
        raise ValueError("a model is missing: give `model` a hub id, a folder, or minilm")
    if is_size(scratch_of(model.model)[0]) and record.inputs == "images":
        raise ValueError(f"{model.model} is a model for text; `task` {record.name} needs one for images, such as "
                         f"{RESNETS[0]}")  # fmt: skip
    if is_resnet(model.model) and record.inputs == "text":
        raise ValueError(f"{', '.join(RESNETS)} are networks for images; `task` {record.name} needs a model for text")
    return record


def load_task(task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> "Task":
    """The task that the arguments describe.

    Raises:
        ValueError: an unknown task, arguments that contradict each other, or data or model not to be had.
    """
    record = check(task, model)
    with trusted(model.trust_remote_code):
        loaded: Task = imported(record.load)(record.name, task, model, seed, do_predict)
    if task.hold_out and not loaded.source.get("held_out"):
        raise ValueError(f"`task` {record.name} holds no training data out to score: leave `hold_out` out")
    if not task.metric:
        return loaded
    more = imported("glue_sparse.tasks.asked_metrics:with_asked")
    return more(loaded, task.metric, record.is_official, model.trust_remote_code)


for _record in (
    *(TaskRecord(name, "glue_sparse.tasks.glue:load") for name in GLUE),
    TaskRecord("squad", "glue_sparse.tasks.squad.task:load"),
    TaskRecord("tweets", "glue_sparse.tasks.tweets:load", "inside the `offline` extra"),
    TaskRecord("cifar10", "glue_sparse.tasks.cifar10:load", inputs="images"),
    TaskRecord("masked_lm", "glue_sparse.tasks.pretraining.task:load", "pre-training on text",
               scales_learning_rate=True),
    TaskRecord("sft", "glue_sparse.tasks.language.task:load_sft", "fine-tuning a decoder on conversations and answers",
               own=SftFlags),
    TaskRecord("causal_lm", "glue_sparse.tasks.language.task:load_causal_lm", "a decoder on plain text"),
    TaskRecord("file", "glue_sparse.tasks.files:load", "your own --train_file and --validation_file",
               is_official=False, needs=("train_file", "validation_file")),
):  # fmt: skip
    register_task(_record)
