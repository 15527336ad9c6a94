"""Builders of the methods: from what a run is told to a method. The only place where methods meet their flags."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import nn

from glue_sparse.arguments.method import MethodArguments
from glue_sparse.core import bitmasks, budgets
from glue_sparse.core.mask_file import load
from glue_sparse.core.masks import Masks
from glue_sparse.core.names import is_bias
from glue_sparse.core.options import Distribution, Shared
from glue_sparse.core.params import trainable_names
from glue_sparse.core.randomness import seed_of
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.diff_file import is_diff
from glue_sparse.methods.base import SparseMethod
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.methods.gates.diff_gates import DiffGates
from glue_sparse.methods.gates.hard_concrete import HardConcrete
from glue_sparse.methods.keep_zeros import KeepZeros
from glue_sparse.methods.leaky_mask import LeakyMask
from glue_sparse.methods.moving.alternate import Alternate
from glue_sparse.methods.moving.drop_grow import DropGrow, with_changes
from glue_sparse.methods.moving.rules import PRESETS, Rule, gradient_magnitude
from glue_sparse.methods.one_shot import OneShot, by_criterion
from glue_sparse.methods.registry import known
from glue_sparse.methods.schedules import Period, period_of
from glue_sparse.scores.named import named
from glue_sparse.scores.scores import ScoreFunction
from glue_sparse.writing.words import command


def _period(args: MethodArguments) -> Period | None:
    return None if args.update_every is None else period_of(args.update_every)


def _seed_of_choice(seed: int, number: int) -> int:
    """The first choice of a run has the run's own seed."""
    return seed_of(seed, "choice", number) if number else seed


_SCORE_OF = {"fish": "fisher", "random": "random", "magnitude": "magnitude"}
"""Methods that are called otherwise than --method score with their score."""


def scored(args: MethodArguments, seed: int) -> SparseMethod:
    """The best entries by a named score: FISH mask, its baselines, and others."""
    def score_of(number: int) -> ScoreFunction:
        return named(
            _SCORE_OF.get(args.method, args.score), estimator=args.fisher_estimator, power=args.fisher_power,
            seed=_seed_of_choice(seed, number), dtype=getattr(torch, args.score_dtype),
        )  # fmt: skip

    how = FixedMask(
        score_of(0),
        score_of=score_of,
        density=args.density,
        tensors=args.tensors,
        distribution=_of(Shared, args.distribution) or "global",
        num_samples=args.num_samples,
        update_every=_period(args),
        choose_after=args.choose_after or None,
    )
    return LeakyMask(how) if args.legacy_decay else how


def _only_biases(model: nn.Module, head: tuple[str, ...]) -> Masks:
    body = trainable_names(model, head)
    names = [name for name in body if not is_bias(name)]
    if len(names) == len(body):
        raise ValueError("every bias of this model is frozen, or it has none, so that only the head would train: call "
                         "requires_grad_(True) on its biases")  # fmt: skip
    return _nothing_of(model, names)


def _nothing_of(model: nn.Module, names: Iterable[str]) -> Masks:
    return {name: torch.zeros_like(model.get_parameter(name), dtype=torch.bool) for name in names}


def bitfit(args: MethodArguments, seed: int) -> SparseMethod:
    """Biases alone."""
    return FixedMask(masks=_only_biases)


def head(args: MethodArguments, seed: int) -> SparseMethod:
    """The head alone."""
    return FixedMask(masks=lambda model, head: _nothing_of(model, trainable_names(model, head)))


def dense(args: MethodArguments, seed: int) -> SparseMethod:
    """Everything."""
    return FixedMask(masks={})


def fixed_mask(args: MethodArguments, seed: int) -> SparseMethod:
    """A mask that is given, as a file or by a diff."""
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


def keep_zeros(args: MethodArguments, seed: int) -> SparseMethod:
    """What is not zero."""
    pattern = budgets.pattern_of(args.pattern) if args.pattern else None
    masks = bitmasks.read(args.mask_file) if args.mask_file else None
    return KeepZeros(tensors=args.tensors, pattern=pattern, masks=masks)


def _small_diff(path: str) -> SparseDiff:
    """A diff to take entries from, unless it is the result of a method that leaves pruning for later."""
    diff = SparseDiff.from_pretrained(path)
    maker = known().get(diff.info.method)
    if maker is not None and maker.is_unpruned and diff.info.density is None:
        raise ValueError(
            f"{path} holds the whole result of {diff.info.method}, which is yet to be pruned: "
            f"{command(f'diff prune {path} PRUNED --density 0.005')}, then give PRUNED instead"
        )
    return diff


def diff_gates(args: MethodArguments, seed: int) -> SparseMethod:
    """Diff pruning, stage 1."""
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


def one_shot(args: MethodArguments, seed: int) -> SparseMethod:
    """Pruned once by a criterion."""
    return by_criterion(
        args.criterion,
        sparsity=args.sparsity,
        distribution=_of(Distribution, args.distribution),
        pattern=args.pattern,
        tensors=args.tensors,
        num_samples=args.num_samples,
        seed=seed,
    )


def lottery_ticket(args: MethodArguments, seed: int) -> SparseMethod:
    """Pruned once more, by what an earlier round left."""
    if args.start_diff is None:
        raise ValueError("--method lottery_ticket needs --start_diff, the folder of the round before; the first round "
                         "is --method one_shot --sparsity 0")  # fmt: skip
    earlier = SparseDiff.from_pretrained(args.start_diff)
    if earlier.num_active and earlier.info.inactive != "zero":
        raise ValueError(f"{args.start_diff} holds a run of {earlier.info.method}, which pruned nothing: a ticket "
                         "starts from a run of one_shot or lottery_ticket")  # fmt: skip
    distribution = _of(Distribution, args.distribution) or "global"
    return OneShot(earlier=earlier, sparsity=args.sparsity, distribution=distribution, tensors=args.tensors)


def _of(kind: Any, name: str | None) -> Any:
    """A name if it is among those of a literal type."""
    return name if name in get_args(kind) else None


def _densities(words: list[str]) -> dict[str, float]:
    """Pattern -> density of --tensor_density; ValueError when a word is no such pair."""
    found = {}
    for word in words:
        pattern, _, number = word.rpartition("=")
        try:
            found[pattern] = float(number)
        except ValueError:
            pattern = ""
        if not pattern:
            raise ValueError(f"--tensor_density is PATTERN=DENSITY, for example '*.stem.*=1', not {word!r}")
    return found


def drop_grow(args: MethodArguments, seed: int) -> SparseMethod:
    """Sparse from the start, by the rule of that name."""
    return DropGrow(
        _rule(args),
        density=args.density,
        distribution=args.distribution or "uniform",
        power=args.erk_power,
        densities=_densities(args.tensor_density),
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


def alternate(args: MethodArguments, seed: int) -> SparseMethod:
    """Dense and sparse phases by turns."""
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
