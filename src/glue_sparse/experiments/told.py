"""What runs are told, with all methods and tasks that are known: from a command line to arguments. Loads no torch."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from glue_sparse.arguments.command_line import CommandLine
from glue_sparse.arguments.flags import Flag, belongs, build, check_belongs, flags_of
from glue_sparse.arguments.groups import MergeArguments, ModelArguments, TaskArguments
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.arguments.run import Arguments
from glue_sparse.methods import registry as methods
from glue_sparse.records import results
from glue_sparse.records.results import Result
from glue_sparse.tasks import registry as tasks
from glue_sparse.writing.fields import typed


def command_line() -> CommandLine:
    """Every flag, those of methods and tasks of other packages too."""
    return _line(tuple(methods.known().values()), tuple(tasks.known().values()))


@lru_cache(maxsize=4)
def _line(all_methods: tuple[methods.Method, ...], all_tasks: tuple[tasks.TaskRecord, ...]) -> CommandLine:
    records = {"method": all_methods, "task": all_tasks}
    choices = {kind: {record.name: record.help for record in known} for kind, known in records.items()}
    more = [(f"{kind.capitalize()} {record.name}", record.own) for kind, known in records.items()
            for record in known if record.own]  # fmt: skip
    return CommandLine(choices, tuple(more), _fits)


def _fits(kind: str, name: str, flag: Flag) -> bool:
    """Whether a method or task of this name has a use for a flag."""
    if kind == "task":
        return belongs(flag, kind, name, tasks.known()[name].takes)
    method = methods.known()[name]
    return flag.name not in method.ignores and belongs(flag, kind, name, method.takes)


def parse(argv: Sequence[str], description: str = "", config: Path | None = None, prog: str | None = None) -> Arguments:
    """Arguments from a command line and the YAML it names; see `CommandLine.values`.

    Raises:
        ValueError: also for a contradiction between flags.
    """
    values, given = command_line().values(argv, description, config, prog)
    method, task = build(MethodArguments, values), build(TaskArguments, values)
    own = methods.find(method.method).own
    method.own = own and build(own, values)
    methods.check(method)
    methods.check_typed(method.method, {name for name in settings_of(argv) if name in given})
    record = tasks.known().get(task.task or "")
    task.own = record and record.own and build(record.own, values)
    _check_own(values)
    values["output_dir"] = values["output_dir"] or _default_folder(values)
    return Arguments(task, build(ModelArguments, values), method, build(MergeArguments, values), values, given)


def _check_own(values: Mapping[str, Any]) -> None:
    """Flags that methods and tasks bring are for themselves; the others are checked by `methods` and `tasks`."""
    records = [*methods.known().values(), *tasks.known().values()]
    flags = [flag for record in records if record.own for flag in flags_of(record.own)]
    for chosen in ("method", "task"):
        check_belongs(flags, values.__getitem__, chosen, str(values[chosen]))


def _default_folder(values: Mapping[str, Any]) -> str:
    model, task = Path(values["model"] or "model").name, values["task"] or "task"
    return f"runs/{model}/{task}/{methods.default_folder(values)}/seed{values['seed']}"


def settings_of(words: Sequence[str]) -> dict[str, str]:
    """See `CommandLine.settings_of`."""
    return command_line().settings_of(words)


def default_of(setting: str) -> Any:
    """What a setting is where results do not name it; ValueError where there is none of this name."""
    if setting == results.PROCESSES:
        return 1
    flags = command_line().flags
    if setting not in flags:
        raise ValueError(f"there is no setting {setting!r}")
    return flags[setting].default


def told(result: Result, setting: str) -> float:
    """The value that a run was given for a setting that is a number; ValueError where it is none."""
    value = result.arguments.get(setting, default_of(setting))
    one = value[0] if isinstance(value, list) and value else value
    return typed(float, one, f"`{setting}` of a run of {result.title}")
