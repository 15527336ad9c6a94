"""Arguments of a method as a dataclass, with the facts of its flags: what they are for, and of which methods."""

from dataclasses import dataclass
from typing import Any, Literal

from glue_sparse.arguments.flags import arg, check_bounds
from glue_sparse.arguments.moving import SCORED, SPARSE, MovingArguments
from glue_sparse.core.budgets import pattern_of
from glue_sparse.core.options import Dtype, Salience

PRUNED = ("one_shot", "lottery_ticket")
GATES = ("diff_gates",)


@dataclass
class _ChoiceArguments:
    """Which method, and which entries it makes active."""

    method: str = arg("fish", "Which entries are active: {choices}.")
    density: float = arg(
        0.005,
        "Active fraction: of all entries, head included, for fish, random, magnitude and score; for networks that "
        "are sparse from the start, of the matrices inside the layers, or of all linear and convolutional weights "
        "without such.",
        above=0, most=1,
    )  # fmt: skip
    tensors: list[str] = arg(
        [],
        "Shell patterns of the tensors that may hold active entries, for example '*.encoder.*'; the budget stays. "
        "Default: all but the head; for methods with zeros, the matrices inside the layers.",
    )
    score: Salience = arg(
        "gradient",
        "For --method score, what a weight w with gradient g is worth: |g| (gradient), |w g| (saliency), its square "
        "(taylor), -w g (skeletonization), SynFlow, GraSP, or what the methods magnitude, random and fish (fisher) go "
        "by.",
        methods=("score",),
    )  # fmt: skip
    num_samples: int = arg(1024, "Training examples for a score.", least=1)
    fisher_estimator: Literal["label", "expected", "sampled"] = arg(
        "label",
        "Whose labels the Fisher uses: the data set's, the exact expectation over the model's classes, or one drawn "
        "from the model.",
        methods=("fish", "score"),
    )
    fisher_power: Literal["square", "absolute"] = arg(
        "square", "Square of each gradient, or absolute value.",
        methods=("fish", "score"), rare=True,
    )  # fmt: skip
    score_dtype: Dtype = arg(
        "float32",
        "Type in which sums of gradients or their squares are kept between batches; added in float32, and rounded "
        "stochastically to bfloat16.",
        methods=("fish", "score"), rare=True,
    )  # fmt: skip
    sparsity: float = arg(
        0.5, "For one_shot and lottery_ticket: share of the weights in the matrices inside the layers to remove.",
        methods=PRUNED, least=0, below=1,
    )  # fmt: skip
    criterion: Literal["magnitude", "random", "wanda"] = arg(
        "magnitude",
        "For one_shot: what a weight is worth. wanda is |w| times the norm of its inputs over --num_samples examples.",
        methods=("one_shot",),
    )  # fmt: skip
    distribution: Literal["global", "uniform", "first_dense", "er", "erk", "row"] | None = arg(
        None,
        "How weights are shared out. For fish, random, magnitude and score: the best of all tensors together (global, "
        "default), of each at the same density (uniform), or at Erdos-Renyi densities (erk). For one_shot and "
        "lottery_ticket: the same of all matrices, or the best of each output's inputs (row); default global, or "
        "uniform for random, row for wanda. For networks that are sparse from the start: uniform (default), "
        "first_dense, er, erk.",
        methods=(*SCORED, *PRUNED, *SPARSE),
    )
    pattern: str | None = arg(
        None, "For one_shot, instead of a sparsity: KEPT:GROUP, so 2:4 keeps 2 of every 4 consecutive inputs. For "
        "keep_zeros: what the pruned matrices must have.",
        methods=("one_shot", "keep_zeros"),
    )  # fmt: skip
    inactive: Literal["frozen", "zero"] | None = arg(
        None,
        "For fixed_mask, networks that are sparse from the start and alternate: weights that do not train keep their "
        "value, or are zero. Default: as in the mask's file; zero.",
        methods=("fixed_mask", *SPARSE, "alternate"),
    )
    mask_file: str | None = arg(
        None, "For fixed_mask: a mask file, or a run's folder or diff to take the mask from. For keep_zeros: a model "
        "folder with bitmasks of compressed-tensors.",
        methods=("fixed_mask", "keep_zeros"), reads=True,
    )  # fmt: skip
    start_diff: str | None = arg(
        None,
        "For fixed_mask: a diff whose entries train on, for example what `glue-sparse diff prune` wrote. For "
        "lottery_ticket: the folder of the round before.",
        methods=("fixed_mask", "lottery_ticket"), reads=True,
    )  # fmt: skip
    start_from: Literal["values", "zero"] = arg(
        "values", "With --start_diff: begin at the diff's values, or at the pretrained ones (a diff of zero).",
        methods=("fixed_mask",), needs={"start_diff": ()},
    )  # fmt: skip
    sparsity_penalty: list[float] = arg(
        [1.25e-7],
        "For diff_gates: added to the loss for each weight expected to change. One number, or one per layer: "
        "embeddings, each block, the rest. Also called --sparsity_pen.",
        methods=GATES, least=0, aliases=["--sparsity_pen", "--sparsity_penalty_per_layer"],
    )  # fmt: skip
    gate_groups: Literal["tensor", "layer", "none"] = arg(
        "tensor", "For diff_gates: a second gate for each tensor (structured diff pruning), each layer, or none.",
        methods=GATES, rare=True,
    )  # fmt: skip
    fix_layer: list[int] = arg(
        [], "For diff_gates: layers that stay as pretrained: 0 = embeddings, 1 = first block, ...",
        methods=GATES, rare=True, least=0,
    )  # fmt: skip
    concrete_lower: float = arg(
        -1.5, "For diff_gates: lower end of the stretched gates.",
        methods=GATES, rare=True, most=0,
    )  # fmt: skip
    concrete_upper: float = arg(
        1.5, "For diff_gates: upper end of the stretched gates.",
        methods=GATES, rare=True, least=1,
    )  # fmt: skip
    gate_temperature: float = arg(
        1.0, "For diff_gates: temperature of the gates' sigmoid.", methods=GATES, rare=True, above=0
    )
    alpha_init: float = arg(
        5.0, "For diff_gates: initial logit of every gate; 5 is wide open.",
        methods=GATES, rare=True,
    )  # fmt: skip
    gate_learning_rate: float = arg(
        0.1, "For diff_gates: learning rate of the gates' logits.",
        methods=GATES, rare=True, least=0,
    )  # fmt: skip
    gate_schedule: Literal["constant", "weights"] = arg(
        "constant", "For diff_gates: the gates' rate stays, or follows the schedule of the weights.",
        methods=GATES, rare=True,
    )  # fmt: skip
    gate_eps: float = arg(
        1e-8,
        "For diff_gates: Adam's epsilon for the logits; decides how fast gates close that the loss does not need.",
        methods=GATES, rare=True, above=0,
    )  # fmt: skip
    as_released: bool = arg(
        False,
        "For diff_gates: as in the authors' code where it differs from the paper: the last training step's random "
        "gates are evaluated and saved, and a group is penalised like a single weight.",
        methods=GATES, rare=True,
    )  # fmt: skip
    legacy_decay: bool = arg(
        False,
        "For fish, random, magnitude and score: as in the FISH authors' CIFAR-10 code, weight decay also shrinks "
        "weights that should stay, so that every weight changes.",
        methods=SCORED, rare=True,
    )  # fmt: skip


@dataclass
class MethodArguments(MovingArguments, _ChoiceArguments):
    """Which entries are active, and when that changes."""

    own: Any = None
    """Flags of the method's own, where it brings some; see `methods.registry.Method`."""

    def __post_init__(self):
        check_bounds(self)
        if self.num_updates is not None and self.update_every is not None:
            raise ValueError("--num_updates and --update_every both say how often: give one of them")
        if self.pattern is not None:
            pattern_of(self.pattern)
            if self.distribution is not None or self.sparsity != type(self).sparsity:
                raise ValueError("--pattern says which share stays, and where: leave --sparsity and --distribution out")
