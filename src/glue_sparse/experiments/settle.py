"""What method, model, task and Trainer decide together, settled once before anything is built."""

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from glue_sparse.analysis import learning_rates
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.arguments.run import Arguments
from glue_sparse.arguments.training import RunArguments
from glue_sparse.core import tensor_files
from glue_sparse.diffs.identity import FILE_NAME, identity
from glue_sparse.experiments.evaluation import check_settings
from glue_sparse.methods import registry as methods
from glue_sparse.models import names
from glue_sparse.records import results
from glue_sparse.tasks import registry as tasks
from glue_sparse.training import probes


@dataclass(frozen=True)
class Settled:
    """A run as it will be.

    Attributes:
        arguments: as they were told.
        method: what the method is told, with a first mask that fits the model.
        training: what the Trainer is told, with the learning rate of a sparse network where it is scaled.
    """

    arguments: Arguments
    method: MethodArguments
    training: RunArguments


def settings(arguments: Arguments) -> dict[str, Any]:
    """The values given, how many processes share the run, and the content of the diff to start from.

    That content decides more than the diff's path does.
    """
    given, start = {**arguments.given, results.PROCESSES: arguments.training.world_size}, arguments.method.start_diff
    if start is None:
        return given
    return {**given, results.START: identity(tensor_files.locate(start, FILE_NAME))[0]}


def asked_density(args: MethodArguments) -> float | None:
    """The density that a run is asked for, by itself or by the diff it starts from; none for methods without one."""
    if args.start_diff is not None:
        return identity(tensor_files.locate(args.start_diff, FILE_NAME))[1].density
    return args.density if methods.find(args.method).has_density else None


def settle(arguments: Arguments) -> Settled:
    """The run that the arguments describe.

    Raises:
        ValueError: settings that contradict each other.
    """
    _check(arguments)
    return Settled(arguments, _with_first_mask(arguments), _with_scaled_rate(arguments))


def _check(arguments: Arguments) -> None:
    training, streaming, merges = arguments.training, arguments.task.streaming, arguments.merge.merge_every
    if training.n_gpu > 1:
        raise ValueError(f"{training.n_gpu} GPUs are visible to one process: use accelerate launch for all of them, or "
                         "choose one with CUDA_VISIBLE_DEVICES=0")  # fmt: skip
    if streaming and (training.max_steps < 1 or merges):
        wrong = "leave `merge_every` out" if merges else "give `max_steps`"
        raise ValueError(f"`streaming` makes pairs without an end, so nobody knows how long an epoch is: {wrong}")
    if streaming and training.dataloader_num_workers > 1:
        raise ValueError("`streaming` makes its pairs one after the other: give `dataloader_num_workers` 0 or 1")
    check_settings(training)
    probes.check(training)
    if training.delta_checkpoints and merges:
        raise ValueError("`delta_checkpoints` is for a single run: leave `merge_every` out")


def _with_first_mask(arguments: Arguments) -> MethodArguments:
    """The first mask of a sparse network is random where its weights are."""
    method, model = arguments.method, arguments.model
    name = names.base_name(model.model or "", arguments.training.seed, model.from_scratch)
    is_random = names.is_random(name)
    for flag in ("variance", "weight_init"):
        if getattr(method, flag) and not is_random:
            raise ValueError(f"`{flag}` is for random weights; pretrained ones keep theirs: leave it out")
    if methods.find(method.method).is_sparse and method.start_mask is None and is_random:
        return replace(method, start_mask="random")
    return method


def _with_scaled_rate(arguments: Arguments) -> RunArguments:
    """With a sparse network's learning rate, by equation 3 of Dietrich et al. (2021), where it is a multiple."""
    training, method, asked = arguments.training, arguments.method, arguments.method.scale_learning_rate
    scales = tasks.find(arguments.task.task).scales_learning_rate if asked is None else asked
    if not (scales and methods.find(method.method).is_sparse):
        return training
    scaled, factor = copy(training), learning_rates.factor(1 - method.density)
    scaled.learning_rate *= factor
    if training.should_save:
        print(f"learning rate {scaled.learning_rate:.4g}: {factor:.3g} times the dense network's "
              f"{training.learning_rate:.4g}, for a sparsity of {1 - method.density:.4g} "
              "(--scale_learning_rate)")  # fmt: skip
    return scaled
