"""Methods by name: what each is told, what it leaves, and where its builder is. Loads no torch until one is built."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glue_sparse.arguments.flags import check_belongs, flags_of
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.arguments.registry import Registry, imported

if TYPE_CHECKING:
    from glue_sparse.methods.base import SparseMethod

Builder = Callable[[MethodArguments, int], "SparseMethod"]
"""(what the method is told, seed) -> the method."""


@dataclass(frozen=True)
class Method:
    """All that is known of a method outside of its own file.

    Attributes:
        build: a `Builder`, or the text `module:function` of one, which is imported when it is needed.
        help: a phrase for --help.
        has_density: whether its budget is --density.
        is_sparse: whether the network is sparse from the start, so that its first mask is as random as its weights.
        prunes_start: whether what it starts from is pruned first, to its density.
        is_unpruned: whether its result is the whole of a diff, which is pruned later.
        takes: flags of other methods that it understands.
        ignores: flags of all methods that it has no use for, so that nobody may type them with it.
        own: a dataclass of `arguments.flags.arg` fields, flags of its own; the builder finds them in `args.own`.
        leaves: names of files that it writes into a run's folder beside the diff.
        folder: settings -> the part of a run's default folder that says what was done; by default its name and density.
        check: raises a ValueError for settings that contradict each other.
    """

    name: str
    build: Builder | str
    help: str = ""
    has_density: bool = False
    is_sparse: bool = False
    prunes_start: bool = False
    is_unpruned: bool = False
    takes: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    own: type | None = None
    leaves: tuple[str, ...] = ()
    folder: Callable[[Mapping[str, Any]], str] | None = None
    check: Callable[[MethodArguments], None] = lambda args: None


METHODS = Registry[Method]("method", "glue_sparse.methods")
"""Those of this package, those of others by the entry point `glue_sparse.methods`, and what is registered."""
known, find = METHODS.known, METHODS.find


def register_method(method: Method) -> None:
    """Make a method known by its name, on the command line and in grids too.

    Args:
        method: its record. For processes of their own (grids) name it in an entry point, `glue_sparse.methods`.
    Raises:
        ValueError: there is another of this name.
    """
    METHODS.register(method)


def check(args: MethodArguments) -> None:
    """Raise a ValueError for flags that the method would ignore, or that contradict each other."""
    method = find(args.method)
    check_belongs(flags_of(MethodArguments), lambda flag: getattr(args, flag), "method", method.name, method.takes)
    method.check(args)


def check_typed(name: str, typed: Iterable[str]) -> None:
    """Raise a ValueError for a flag among those that were typed that the method of this name ignores."""
    for flag in typed:
        if flag in find(name).ignores:
            raise ValueError(f"`{flag}` has no effect with `method` {name}: leave it out")


def build_method(args: MethodArguments, seed: int) -> "SparseMethod":
    """The method that `args.method` names.

    Raises:
        ValueError: unknown method, or arguments that do not fit it.
    """
    check(args)
    return imported(find(args.method).build)(args, seed)


def default_folder(values: Mapping[str, Any]) -> str:
    """What a run's default folder says of its method: its name, and the settings that tell it from others."""
    method = find(values["method"])
    if method.folder is not None:
        return method.folder(values)
    return f"{method.name}-{values['density']}" if method.has_density else method.name


def _ticket_folder(values: Mapping[str, Any]) -> str:
    return f"lottery_ticket-{values['sparsity']}"


def _scored_folder(values: Mapping[str, Any]) -> str:
    score = (values["score"],) if values["method"] == "score" else ()
    shared = (values["distribution"],) if values["distribution"] else ()
    return "-".join([values["method"], *score, str(values["density"]), *shared])


def _given_folder(values: Mapping[str, Any]) -> str:
    start = values["start_diff"]
    return f"fixed_mask-{Path(start).name if start else values['density']}"


def _pruned_folder(values: Mapping[str, Any]) -> str:
    parts = (values["criterion"], values["distribution"], values["pattern"] or values["sparsity"])
    return "-".join(["one_shot", *(str(part).replace(":", "of") for part in parts if part is not None)])


def _check_distribution(args: MethodArguments, choices: tuple[str, ...]) -> None:
    if args.distribution is not None and args.distribution not in choices:
        raise ValueError(f"--method {args.method} has no --distribution {args.distribution}: {', '.join(choices)}")


def _check_pruned(args: MethodArguments) -> None:
    _check_distribution(args, ("global", "uniform", "erk", "row"))


_NOT_SUMMED = ("synflow", "grasp", "magnitude", "random")
"""Scores that keep no sums from batch to batch, or (GraSP) take them for a product in float32."""


def _check_scored(args: MethodArguments) -> None:
    _check_distribution(args, ("global", "uniform", "erk"))
    if args.choose_after and args.legacy_decay:
        raise ValueError("`choose_after` gives weights their first value back, and `legacy_decay` changes all of them: "
                         "give one of them")  # fmt: skip
    if args.score_dtype != "float32" and args.method == "score" and args.score in _NOT_SUMMED:
        raise ValueError(f"`score_dtype` has no effect with `score` {args.score}: leave it out")
    told = ("fisher_estimator", "fisher_power")
    given = [flag for flag in told if getattr(args, flag) != getattr(MethodArguments, flag)]
    if given and args.method == "score" and args.score != "fisher":
        raise ValueError(f"`{given[0]}` has no effect with `score` {args.score}: leave it out")


def _check_sparse(args: MethodArguments) -> None:
    _check_distribution(args, ("uniform", "first_dense", "er", "erk"))
    in_intervals = args.num_updates is not None or args.method == "dynsparse" and args.update_every is None
    if args.update_until is not None and in_intervals:
        raise ValueError("--update_until goes with --update_every: the intervals of --num_updates fill the run")


_BUILDERS = "glue_sparse.methods.builders"
_BUDGET = ("density", "tensors")
"""What methods that choose no entries by a budget have no use for."""
_SCORED: dict[str, Any] = {
    "build": f"{_BUILDERS}:scored", "has_density": True, "check": _check_scored, "folder": _scored_folder,
}  # fmt: skip
_SPARSE: dict[str, Any] = {
    "build": f"{_BUILDERS}:drop_grow", "has_density": True, "is_sparse": True, "check": _check_sparse,
    "leaves": ("patterns.safetensors",),
}  # fmt: skip
for _method in (
    Method("dense", f"{_BUILDERS}:dense", "all weights", is_unpruned=True, ignores=_BUDGET),
    Method("fish", help="the weights with the largest Fisher information", **_SCORED),
    Method("random", help="weights drawn at random", **_SCORED),
    Method("score", help="the weights with the largest --score", **_SCORED),
    Method("bitfit", f"{_BUILDERS}:bitfit", "the biases", ignores=_BUDGET),
    Method("head", f"{_BUILDERS}:head", "nothing but the head, so a linear probe", ignores=_BUDGET),
    Method("magnitude", help="the largest weights", **_SCORED),
    Method("fixed_mask", f"{_BUILDERS}:fixed_mask", "those of --mask_file or --start_diff", prunes_start=True,
           ignores=("tensors",), folder=_given_folder),
    Method("diff_gates", f"{_BUILDERS}:diff_gates", "diff pruning, stage 1: gates are learnt", is_unpruned=True,
           ignores=_BUDGET, leaves=("gates.safetensors",)),
    Method("one_shot", f"{_BUILDERS}:one_shot", "prune, then train what is left", folder=_pruned_folder,
           ignores=("density",), check=_check_pruned),
    Method("lottery_ticket", f"{_BUILDERS}:lottery_ticket", "one_shot by what an earlier round left",
           folder=_ticket_folder, ignores=("density",), check=_check_pruned),
    Method("keep_zeros", f"{_BUILDERS}:keep_zeros", "what is not zero in a model that is pruned already",
           ignores=("density",)),
    Method("static", help="sparse from the start, always with the same weights", **_SPARSE),
    Method("set", help="sparse from the start; weights move to random places: SET", **_SPARSE),
    Method("snfs", help="sparse from the start; weights move to where momentum is large: SNFS", **_SPARSE),
    Method("rigl", help="sparse from the start; weights move to where gradients are large: RigL", **_SPARSE),
    Method("dynsparse", help="sparse from the start; tiles of weights move to random places", **_SPARSE),
    Method("alternate", f"{_BUILDERS}:alternate", "dense and sparse phases by turns", has_density=True),
):  # fmt: skip
    register_method(_method)
