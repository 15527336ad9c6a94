"""Methods by name. To add one, write a builder (arguments, seed) -> SparseMethod and put it into METHODS."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from glue_sparse.arguments import MethodArguments
from glue_sparse.commands import closest
from glue_sparse.diff import SparseDiff
from glue_sparse.diff_file import FILE_NAME, identity, is_diff
from glue_sparse.hard_concrete import HardConcrete
from glue_sparse.masks import Masks, load
from glue_sparse.methods.base import SparseMethod
from glue_sparse.methods.diff_gates import DiffGates
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.params import body_names, is_bias
from glue_sparse.scores import fisher, magnitude, noise
from glue_sparse.tensor_files import locate


def _fish(args: MethodArguments, seed: int) -> SparseMethod:
    score = partial(fisher, estimator=args.fisher_estimator, power=args.fisher_power, seed=seed)
    return FixedMask(score, density=args.density, tensors=args.tensors, num_samples=args.num_samples)


def _random(args: MethodArguments, seed: int) -> SparseMethod:
    return FixedMask(partial(noise, seed=seed), density=args.density, tensors=args.tensors)


def _magnitude(args: MethodArguments, seed: int) -> SparseMethod:
    return FixedMask(magnitude, density=args.density, tensors=args.tensors)


def _only_biases(model: nn.Module, head: tuple[str, ...]) -> Masks:
    names = [name for name in body_names(model, head) if not is_bias(name)]
    return {name: torch.zeros_like(model.get_parameter(name), dtype=torch.bool) for name in names}


def _bitfit(args: MethodArguments, seed: int) -> SparseMethod:
    return FixedMask(masks=_only_biases)


def _dense(args: MethodArguments, seed: int) -> SparseMethod:
    return FixedMask(masks={})


def _fixed_mask(args: MethodArguments, seed: int) -> SparseMethod:
    path = args.mask_file
    if (path is None) == (args.start_diff is None):
        raise ValueError("--method fixed_mask needs --mask_file (a mask file, or a diff) or --start_diff (a diff)")
    if path is None:
        diff = _small_diff(str(args.start_diff))
        if args.density not in (MethodArguments.density, diff.info.density):
            raise ValueError(f"--density {args.density} does not go with --start_diff, whose is {diff.info.density}")
        return FixedMask(start=diff, start_from=args.start_from)
    if args.start_from != "values":
        raise ValueError(f"--start_from {args.start_from} goes with --start_diff, not with --mask_file")
    if is_diff(path):
        diff = _small_diff(path)
        return FixedMask(masks=lambda model, head: diff.masks(model))
    return FixedMask(masks=load(path))


def _small_diff(path: str) -> SparseDiff:
    """A diff to take entries from, unless it is the result of a method that leaves pruning for later."""
    diff = SparseDiff.from_pretrained(path)
    if diff.info.method in ("dense", "diff_gates") and diff.info.density is None:
        raise ValueError(
            f"{path} holds the whole result of {diff.info.method}, which is yet to be pruned: python "
            f"scripts/prune_diff.py {path} PRUNED --density 0.005, then give PRUNED instead"
        )
    return diff


def _diff_gates(args: MethodArguments, seed: int) -> SparseMethod:
    return DiffGates(
        penalty=args.sparsity_penalty,
        groups=args.gate_groups,
        fix_layer=args.fix_layer,
        concrete=HardConcrete(args.concrete_lower, args.concrete_upper, args.gate_temperature),
        alpha_init=args.alpha_init,
        gate_learning_rate=args.gate_learning_rate,
        gate_schedule=args.gate_schedule,
        gate_eps=args.gate_eps,
        as_released=args.as_released,
        seed=seed,
    )


METHODS: dict[str, Callable[[MethodArguments, int], SparseMethod]] = {
    "dense": _dense,
    "fish": _fish,
    "random": _random,
    "bitfit": _bitfit,
    "magnitude": _magnitude,
    "fixed_mask": _fixed_mask,
    "diff_gates": _diff_gates,
}
WITH_DENSITY = ("fish", "random", "magnitude")
"""Methods whose budget is --density."""


def asked_density(args: MethodArguments) -> float | None:
    """The density that a run is asked for, by itself or by the diff it starts from; none for methods without one."""
    if args.start_diff is not None:
        return identity(locate(args.start_diff, FILE_NAME))[1].density
    return args.density if args.method in WITH_DENSITY else None


def check_method(name: str) -> None:
    """Raise a ValueError for a method that does not exist."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}{closest(name, METHODS, otherwise='')} Methods: {', '.join(METHODS)}")


def build_method(args: MethodArguments, seed: int) -> SparseMethod:
    """The method that `args.method` names.

    Raises:
        ValueError: unknown method, or arguments that do not fit it.
    """
    check_method(args.method)
    return METHODS[args.method](args, seed)
