"""The cells of a grid as a Slurm array job, each on one machine or on several."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from glue_sparse.experiments import devices
from glue_sparse.experiments.cells import Cell, Grid
from glue_sparse.experiments.machines import HERE, Machines
from glue_sparse.experiments.runner import Running, last_words, missing, start_process
from glue_sparse.records.folder import check_places
from glue_sparse.writing.extras import needed

_PORTS = range(10000, 30000)
"""Of the meeting of several machines; below those that a system gives to whoever asks."""


def run_slurm(grid: Grid, jobs: int, options: Sequence[str] = (), cluster: str = "slurm") -> str:
    """Submit the missing cells as an array job of at most `jobs` at a time; returns a line that says so.

    Cells that start from other runs go into further arrays, each of which begins when the one before it is through.

    Args:
        options: NAME=VALUE pairs for `submitit.AutoExecutor.update_parameters`, for example gpus_per_node=1.
        cluster: `slurm`, or `local` to try it without a scheduler.
    Raises:
        ValueError: submitit is not installed, or does not know an option; or runs and nodes do not fit.
    """
    submitit = needed("submitit", "`launcher` slurm", "slurm")
    grid.check()
    todo, logs = missing(grid), Path("runs", grid.name, "slurm")
    if not todo:
        return "nothing to submit: no run is missing that could run now"
    parameters = dict(_option(text) for text in options)
    _check(todo, parameters)
    check_places(cell.folder for cell in todo)
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        if cluster == "slurm":
            parameters["slurm_array_parallelism"] = jobs
        executor.update_parameters(name=grid.name, **parameters)
        arrays = []
        for cells in _waves(todo):
            if arrays and cluster == "slurm":
                given = parameters.get("slurm_additional_parameters", {})
                executor.update_parameters(
                    slurm_additional_parameters={**given, "dependency": f"afterany:{arrays[-1]}"}
                )
            arrays.append(executor.map_array(run_cell, cells)[0].job_id.partition("_")[0])
    except (NameError, TypeError, RuntimeError) as error:
        raise ValueError(f"submitit refuses: {error}") from error
    return f"submitted {len(todo)} runs as array job {' and then '.join(arrays)}; logs in {logs}"


def _check(todo: Sequence[Cell], parameters: Mapping[str, Any]) -> None:
    """Raise a ValueError for a job whose nodes are not all used, or which would start runs twice."""
    if (tasks := parameters.get("tasks_per_node", 1)) != 1:
        raise ValueError(f"`slurm` tasks_per_node={tasks} would start each run as often: leave it out, and give "
                         "`num_processes`, the processes that one task starts")  # fmt: skip
    nodes = parameters.get("nodes", 1)
    for cell in todo if nodes != 1 else ():
        if type(nodes) is not int or nodes < 1 or cell.num_processes < nodes:
            raise ValueError(f"`slurm` nodes={nodes} is for runs of at least as many processes, and {cell.name} has "
                             f"{cell.num_processes}: give `num_processes`")  # fmt: skip
        Machines(nodes).share(cell.num_processes)


def _waves(todo: Sequence[Cell]) -> list[list[Cell]]:
    """The cells in groups, each of which needs only earlier ones."""
    waves, left = [], list(todo)
    while left:
        waves.append([cell for cell in left if cell.start not in left])
        left = [cell for cell in left if cell not in waves[-1]]
    return waves


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"`slurm` takes NAME=VALUE pairs, not {text!r}")
    return name, int(value) if value.isdecimal() else value


def run_cell(cell: Cell) -> float | None:
    """What a job of the array does, also when Slurm starts it again: the cell, if it is still missing; its score.

    Of several machines the first does it, and the others start their share of the processes.

    Raises:
        RuntimeError: it failed.
        ValueError: there are too few GPUs.
    """
    machines = _machines()
    devices.check([cell], 1, machines.count)
    result, log, reason = cell.result(), cell.log, ""
    if result is None and machines.own:
        log = cell.folder / f"log_{machines.own}.txt"
        if not (reason := _join(cell, machines, log)):
            return None
    elif result is None:
        attempt = Running(1, machines=machines).run(cell)
        result, reason = attempt.result, attempt.reason
    if result is None:
        raise RuntimeError(f"{cell.name} failed, log: {log}: {reason}")
    return result.score


def _join(cell: Cell, machines: Machines, path: Path) -> str:
    """Start this machine's processes of a run that the first one leads; the last words where they fail."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        start = log.tell()
        environment = devices.environment(0, 1, machines.share(cell.num_processes))
        process = start_process(cell.commands(machines)[-1], log, environment, is_apart=True)
        return last_words(path, start) if process.wait() else ""


def _machines() -> Machines:
    """Those of the job that this process is in; the first one's name is that of the node in Slurm."""
    job = import_module("submitit").JobEnvironment()
    if job.num_nodes == 1:
        return HERE
    port = _PORTS[int(job.raw_job_id) % len(_PORTS)]
    return Machines(job.num_nodes, job.node, f"{job.hostnames[0]}:{port}", job.job_id)
