"""Methods by name. To add one, write a builder (arguments, seed) -> SparseMethod and put it into METHODS."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import torch
from torch import nn

from glue_sparse.arguments.method import WITH_DENSITY, MethodArguments, densities_of, pattern_of
from glue_sparse.core.mask_file import load
from glue_sparse.core.masks import Masks
from glue_sparse.core.params import body_names, is_bias
from glue_sparse.core.randomness import seed_of
from glue_sparse.core.tensor_files import locate
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.diff_file import FILE_NAME, identity, is_diff
from glue_sparse.methods.base import SparseMethod
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.methods.gates.diff_gates import DiffGates
from glue_sparse.methods.gates.hard_concrete import HardConcrete
from glue_sparse.methods.moving.alternate import Alternate
from glue_sparse.methods.moving.drop_grow import DropGrow, with_changes
from glue_sparse.methods.moving.rules import PRESETS, Rule, gradient_magnitude
from glue_sparse.methods.one_shot import Distribution, OneShot
from glue_sparse.methods.schedules import Period, period_of
from glue_sparse.scores.activations import wanda
from glue_sparse.scores.scores import ScoreFunction, fisher, magnitude, noise
from glue_sparse.writing.words import check_one_of


def _period(args: MethodArguments) -> Period | None:
    return None if args.update_every is None else period_of(args.update_every)


def _scored(args: MethodArguments, score: ScoreFunction, **options: Any) -> SparseMethod:
    return FixedMask(
        score, density=args.density, tensors=args.tensors, update_every=_period(args),
        legacy_decay=args.legacy_decay, **options,
    )  # fmt: skip


def _seed_of_choice(seed: int, number: int) -> int:
    """The first choice of a run has the run's own seed."""
    return seed_of(seed, "choice", number) if number else seed


def _fish(args: MethodArguments, seed: int) -> SparseMethod:
    def score_of(number: int) -> ScoreFunction:
        how = {"estimator": args.fisher_estimator, "power": args.fisher_power}
        return partial(fisher, **how, seed=_seed_of_choice(seed, number))

    return _scored(args, score_of(0), score_of=score_of, num_samples=args.num_samples)


def _random(args: MethodArguments, seed: int) -> SparseMethod:
    def score_of(number: int) -> ScoreFunction:
        return partial(noise, seed=_seed_of_choice(seed, number))

    return _scored(args, score_of(0), score_of=score_of)


def _magnitude(args: MethodArguments, seed: int) -> SparseMethod:
    return _scored(args, magnitude)


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
        if args.inactive is not None:
            raise ValueError("--inactive goes with --mask_file; a diff to start from says itself what the others hold")
        return FixedMask(start=diff, start_from=args.start_from)
    if args.start_from != "values":
        raise ValueError(f"--start_from {args.start_from} goes with --start_diff, not with --mask_file")
    if is_diff(path):
        diff = _small_diff(path)
        return FixedMask(
            masks=diff.own_masks(), inactive=args.inactive or diff.info.inactive, block_size=args.block_size
        )
    masks, inactive = load(path)
    return FixedMask(masks=masks, inactive=args.inactive or inactive, block_size=args.block_size)


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


def _one_shot(args: MethodArguments, seed: int) -> SparseMethod:
    criteria: dict[str, tuple[ScoreFunction, Distribution]] = {
        "magnitude": (magnitude, "global"),
        "random": (partial(noise, seed=seed), "uniform"),
        "wanda": (wanda, "row"),
    }
    check_one_of("criterion", args.criterion, criteria)
    score, usual = criteria[args.criterion]
    return OneShot(
        score,
        sparsity=args.sparsity,
        distribution=_pruned_distribution(args, usual),
        pattern=pattern_of(args.pattern) if args.pattern else None,
        tensors=args.tensors,
        num_samples=args.num_samples if args.criterion == "wanda" else 0,
    )


def _lottery_ticket(args: MethodArguments, seed: int) -> SparseMethod:
    if args.start_diff is None:
        raise ValueError("--method lottery_ticket needs --start_diff, the folder of the round before; the first round "
                         "is --method one_shot --sparsity 0")  # fmt: skip
    earlier = SparseDiff.from_pretrained(args.start_diff)
    if earlier.num_active and earlier.info.inactive != "zero":
        raise ValueError(f"{args.start_diff} holds a run of {earlier.info.method}, which pruned nothing: a ticket "
                         "starts from a run of one_shot or lottery_ticket")  # fmt: skip
    distribution = _pruned_distribution(args, "global")
    return OneShot(earlier=earlier, sparsity=args.sparsity, distribution=distribution, tensors=args.tensors)


def _pruned_distribution(args: MethodArguments, usual: Distribution) -> Distribution:
    known: dict[str, Distribution] = {name: name for name in get_args(Distribution)}
    return known[args.distribution] if args.distribution else usual


def _drop_grow(args: MethodArguments, seed: int) -> SparseMethod:
    return DropGrow(
        _rule(args),
        density=args.density,
        distribution=args.distribution or "uniform",
        power=args.erk_power,
        densities=densities_of(args.tensor_density),
        tensors=args.tensors,
        start=args.start_mask or "magnitude",
        variance=args.variance,
        initial=args.weight_init,
        inactive=args.inactive or "zero",
        group_lasso=args.group_lasso,
        weight_decay=args.sparse_weight_decay,
        seed=seed,
    )


def _rule(args: MethodArguments) -> Rule:
    preset = PRESETS[args.method]
    if args.grow == "gradient":
        preset = replace(preset, grow=gradient_magnitude, gradients="at_updates")
    rule = with_changes(
        preset, every=_period(args), until=args.update_until, intervals=args.num_updates,
        drop_fraction=args.drop_fraction, decay=args.drop_schedule, when=args.update_rule, regrown=args.regrown,
        entrants=args.entrants, block_size=args.block_size, block_norm=args.block_norm,
    )  # fmt: skip
    return replace(rule, redistribute=None) if args.redistribute is False else rule


def _alternate(args: MethodArguments, seed: int) -> SparseMethod:
    return Alternate(
        args.num_phases,
        first=args.first_phase,
        density=args.density,
        selection=args.selection,
        inactive=args.inactive or "zero",
        tensors=args.tensors,
        block_size=args.block_size,
        entrants=args.entrants or "mean",
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
    "one_shot": _one_shot,
    "lottery_ticket": _lottery_ticket,
    **dict.fromkeys(PRESETS, _drop_grow),
    "alternate": _alternate,
}


def asked_density(args: MethodArguments) -> float | None:
    """The density that a run is asked for, by itself or by the diff it starts from; none for methods without one."""
    if args.start_diff is not None:
        return identity(locate(args.start_diff, FILE_NAME))[1].density
    return args.density if args.method in WITH_DENSITY else None


def check_method(name: str) -> None:
    """Raise a ValueError for a method that does not exist."""
    check_one_of("method", name, METHODS)


def build_method(args: MethodArguments, seed: int) -> SparseMethod:
    """The method that `args.method` names.

    Raises:
        ValueError: unknown method, or arguments that do not fit it.
    """
    check_method(args.method)
    return METHODS[args.method](args, seed)
