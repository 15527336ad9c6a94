"""Arguments of a method as a dataclass, with the help texts of its flags, and which methods each flag is for."""

from dataclasses import dataclass, field
from typing import Literal

from glue_sparse.arguments.moving import SparseArguments, arg
from glue_sparse.core.budgets import check_sparsity


@dataclass
class _ChoiceArguments:
    """Which method, and which entries it makes active."""

    method: str = arg(
        "fish",
        "dense, fish, random, bitfit, magnitude, diff_gates (diff pruning, stage 1), fixed_mask (with --mask_file or "
        "--start_diff), one_shot (prune, then train), lottery_ticket (one_shot by what an earlier round left), or "
        "networks that are sparse from the start and whose weights move: static (they do not), set, snfs, rigl, "
        "dynsparse; or alternate (dense and sparse phases by turns).",
    )
    density: float = arg(
        0.005,
        "Active fraction, in (0, 1]: of all entries, head included, for fish, random and magnitude; for networks that "
        "are sparse from the start, of the matrices inside the layers, or of all linear and convolutional weights "
        "without such.",
    )
    tensors: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Shell patterns of the tensors that may hold active entries, for example '*.encoder.*'; the budget "
            "stays. Default: all but the head; for methods with zeros, the matrices inside the layers."
        },
    )
    num_samples: int = arg(1024, "Training examples used for a score.")
    fisher_estimator: Literal["label", "expected", "sampled"] = arg(
        "label",
        "Whose labels the Fisher uses: the data set's, the exact expectation over the model's classes, or one drawn "
        "from the model.",
    )
    fisher_power: Literal["square", "absolute"] = arg("square", "Square of each gradient, or absolute value.")
    sparsity: float = arg(
        0.5, "For one_shot and lottery_ticket: share of the weights in the matrices inside the layers to remove."
    )
    criterion: Literal["magnitude", "random", "wanda"] = arg(
        "magnitude",
        "For one_shot: what a weight is worth. wanda is |w| times the norm of its inputs over --num_samples examples.",
    )
    distribution: Literal["global", "uniform", "first_dense", "er", "erk", "row"] | None = arg(
        None,
        "How weights are shared out. For one_shot and lottery_ticket: the best of all matrices together (global), of "
        "each at the same sparsity (uniform), at Erdos-Renyi densities (erk), or of each output's inputs (row); "
        "default global, or uniform for random, row for wanda. For networks that are sparse from the start: uniform "
        "(default), first_dense, er, erk.",
    )
    pattern: str | None = arg(
        None, "For one_shot, instead of a sparsity: KEPT:GROUP, so 2:4 keeps 2 of every 4 consecutive inputs."
    )
    inactive: Literal["frozen", "zero"] | None = arg(
        None,
        "For fixed_mask, networks that are sparse from the start and alternate: weights that do not train keep their "
        "value, or are zero. Default: as in the mask's file; zero.",
    )
    mask_file: str | None = arg(None, "For fixed_mask: a mask file, or a run's folder or diff to take the mask from.")
    start_diff: str | None = arg(
        None,
        "For fixed_mask: a diff whose entries train on, for example what scripts/prune_diff.py wrote. For "
        "lottery_ticket: the folder of the round before.",
    )
    start_from: Literal["values", "zero"] = arg(
        "values", "With --start_diff: begin at the diff's values, or at the pretrained ones (a diff of zero)."
    )
    sparsity_penalty: list[float] = field(
        default_factory=lambda: [1.25e-7],
        metadata={
            "help": "For diff_gates: added to the loss for each weight expected to change. One number, or one per "
            "layer: embeddings, each block, the rest. Also called --sparsity_pen.",
            "aliases": ["--sparsity_pen", "--sparsity_penalty_per_layer"],
        },
    )
    gate_groups: Literal["tensor", "layer", "none"] = arg(
        "tensor", "For diff_gates: a second gate for each tensor (structured diff pruning), each layer, or none."
    )
    fix_layer: list[int] = field(
        default_factory=list,
        metadata={"help": "For diff_gates: layers that stay as pretrained: 0 = embeddings, 1 = first block, ..."},
    )
    concrete_lower: float = arg(-1.5, "For diff_gates: lower end of the stretched gates, at most 0.")
    concrete_upper: float = arg(1.5, "For diff_gates: upper end of the stretched gates, at least 1.")
    gate_temperature: float = arg(1.0, "For diff_gates: temperature of the gates' sigmoid.")
    alpha_init: float = arg(5.0, "For diff_gates: initial logit of every gate; 5 is wide open.")
    gate_learning_rate: float = arg(0.1, "For diff_gates: learning rate of the gates' logits.")
    gate_schedule: Literal["constant", "weights"] = arg(
        "constant", "For diff_gates: the gates' rate stays, or follows the schedule of the weights."
    )
    gate_eps: float = arg(
        1e-8, "For diff_gates: Adam's epsilon for the logits; decides how fast gates close that the loss does not need."
    )
    as_released: bool = arg(
        False,
        "For diff_gates: as in the authors' code where it differs from the paper: the last training step's random "
        "gates are evaluated and saved, and a group is penalised like a single weight.",
    )
    legacy_decay: bool = arg(
        False,
        "For fish, random and magnitude: as in the FISH authors' CIFAR-10 code, weight decay also shrinks weights that "
        "should stay, so that every weight changes.",
    )


@dataclass
class MethodArguments(SparseArguments, _ChoiceArguments):
    """Which entries are active, and when that changes."""

    def __post_init__(self):
        if self.method not in ("fixed_mask", "lottery_ticket") and self.start_diff is not None:
            raise ValueError(f"--start_diff goes with --method fixed_mask or lottery_ticket, not with {self.method}")
        for flag, methods in _BELONGS_TO.items():
            if getattr(self, flag) != getattr(type(self), flag, []) and self.method not in methods:
                raise ValueError(f"--{flag} goes with --method {' or '.join(methods)}, not with {self.method}")
        known = _SHARED_OUT["pruned" if self.method in PRUNED else "sparse"]
        if self.distribution is not None and self.distribution not in known:
            raise ValueError(f"--method {self.method} has no --distribution {self.distribution}: {', '.join(known)}")
        if self.erk_power != type(self).erk_power and self.distribution not in ("er", "erk"):
            raise ValueError("--erk_power goes with --distribution er or erk")
        if self.num_updates is not None and self.update_every is not None:
            raise ValueError("--num_updates and --update_every both say how often: give one of them")
        in_intervals = self.num_updates is not None or self.method == "dynsparse" and self.update_every is None
        if self.update_until is not None and in_intervals:
            raise ValueError("--update_until goes with --update_every: the intervals of --num_updates fill the run")
        if self.pattern is not None:
            pattern_of(self.pattern)
            if self.distribution is not None or self.sparsity != type(self).sparsity:
                raise ValueError("--pattern says which share stays, and where: leave --sparsity and --distribution out")
        check_sparsity(self.sparsity)
        if not 0 < self.density <= 1:
            raise ValueError(f"--density must be in (0, 1], got {self.density}")
        if self.num_samples < 1:
            raise ValueError(f"--num_samples must be at least 1, got {self.num_samples}")


PRUNED = ("one_shot", "lottery_ticket")
DYNAMIC = ("set", "snfs", "rigl", "dynsparse")
"""Methods whose weights move."""
SPARSE = ("static", *DYNAMIC)
"""Methods of networks that are sparse from the start."""
WITH_DENSITY = ("fish", "random", "magnitude", *SPARSE, "alternate")
"""Methods whose budget is --density."""

_SHARED_OUT = {"pruned": ("global", "uniform", "erk", "row"), "sparse": ("uniform", "first_dense", "er", "erk")}
"""Values of --distribution."""

_BELONGS_TO = {
    "sparsity": PRUNED,
    "distribution": (*PRUNED, *SPARSE),
    "update_every": ("fish", "random", "magnitude", *DYNAMIC),
    "update_until": DYNAMIC,
    "drop_fraction": DYNAMIC,
    "drop_schedule": DYNAMIC,
    "update_rule": DYNAMIC,
    "redistribute": ("snfs",),
    "regrown": DYNAMIC,
    "start_mask": SPARSE,
    "variance": SPARSE,
    "erk_power": SPARSE,
    "tensor_density": SPARSE,
    "block_size": (*SPARSE, "alternate", "fixed_mask"),
    "block_norm": DYNAMIC,
    "num_updates": DYNAMIC,
    "grow": ("dynsparse",),
    "entrants": (*DYNAMIC, "alternate"),
    "weight_init": SPARSE,
    "group_lasso": SPARSE,
    "sparse_weight_decay": SPARSE,
    "scale_learning_rate": SPARSE,
    "num_phases": ("alternate",),
    "first_phase": ("alternate",),
    "selection": ("alternate",),
    "legacy_decay": ("fish", "random", "magnitude"),
    "criterion": ("one_shot",),
    "pattern": ("one_shot",),
    "inactive": ("fixed_mask", *SPARSE, "alternate"),
    "start_from": ("fixed_mask",),
}
"""Flags of `MethodArguments` that other methods would ignore."""


def pattern_of(text: str) -> tuple[int, int]:
    """(kept, group) of a --pattern; ValueError when it is none."""
    kept, colon, group = text.partition(":")
    if not (colon and kept.isdecimal() and group.isdecimal()):
        raise ValueError(f"--pattern is KEPT:GROUP, for example 2:4 (in quotes in a YAML), not {text!r}")
    return int(kept), int(group)


def densities_of(words: list[str]) -> dict[str, float]:
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
