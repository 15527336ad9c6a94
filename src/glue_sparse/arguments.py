"""Arguments of a run as dataclasses, with the help texts of their flags."""

import os
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from glue_sparse.budgets import check_sparsity


def _arg(default: Any, help: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help, **metadata})


@dataclass
class ModelArguments:
    """Which pretrained model to start from."""

    model: str | None = _arg(
        None, "Hub id, folder, or `minilm` (the model inside the `offline` extra; no network needed)."
    )
    dtype: Literal["float32", "bfloat16"] = _arg(
        "float32", "Type of the base weights. Active entries are kept in float32 either way."
    )


@dataclass
class TaskArguments:
    """Which data to train on."""

    task: str | None = _arg(
        None,
        "A GLUE task (cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb, wnli), `squad`, `tweets` (inside the `offline` "
        "extra), or `file` for your own --train_file and --validation_file.",
    )
    data_dir: str | None = _arg(
        None,
        "Folder with the task in GLUE's TSV layout (RTE/train.tsv, ...), or with SQuAD's train-v1.1.json and "
        "dev-v1.1.json. Default: the hub.",
    )
    train_file: str | None = _arg(None, "Your own training data: .csv, .tsv, .jsonl/.json or .parquet.")
    validation_file: str | None = _arg(None, "Your own validation data, same columns.")
    test_file: str | None = _arg(None, "Your own unlabelled data for --do_predict.")
    text_columns: list[str] = field(
        default_factory=lambda: ["text"], metadata={"help": "One or two text columns of your own files."}
    )
    label_column: str = _arg("label", "Label column of your own files; numbers with a fraction mean regression.")
    max_length: int = _arg(128, "Longest input in tokens; longer ones are cut, shorter ones padded per batch.")
    doc_stride: int = _arg(
        128, "For squad: tokens that consecutive windows of a long paragraph share; needs --max_length 384 or so."
    )
    n_best_size: int = _arg(
        20, "For squad: likely starts and ends looked at per window, and answers kept per question."
    )
    max_answer_length: int = _arg(30, "For squad: longest answer in tokens that is looked for.")
    max_train_samples: int | None = _arg(None, "Use only this many training examples (drawn by --seed).")
    max_eval_samples: int | None = _arg(None, "Use only the first this many examples of each validation split.")
    max_predict_samples: int | None = _arg(None, "Use only the first this many examples of each test split.")

    def __post_init__(self):
        for name, least in (("doc_stride", 0), ("n_best_size", 1), ("max_answer_length", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")


@dataclass
class MethodArguments:
    """Which entries are active."""

    method: str = _arg(
        "fish",
        "dense, fish, random, bitfit, magnitude, diff_gates (diff pruning, stage 1), fixed_mask (with --mask_file or "
        "--start_diff), one_shot (prune, then train), or lottery_ticket (one_shot by what an earlier round left).",
    )
    density: float = _arg(
        0.005, "Active fraction of all entries, head included, in (0, 1]; for fish, random and magnitude."
    )
    tensors: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Shell patterns of the tensors that may hold active entries, for example '*.encoder.*'; the budget "
            "stays. Default: all but the head; for one_shot and lottery_ticket, the matrices inside the layers."
        },
    )
    num_samples: int = _arg(1024, "Training examples used for a score.")
    fisher_estimator: Literal["label", "expected", "sampled"] = _arg(
        "label",
        "Whose labels the Fisher uses: the data set's, the exact expectation over the model's classes, or one drawn "
        "from the model.",
    )
    fisher_power: Literal["square", "absolute"] = _arg("square", "Square of each gradient, or absolute value.")
    sparsity: float = _arg(
        0.5, "For one_shot and lottery_ticket: share of the weights in the matrices inside the layers to remove."
    )
    criterion: Literal["magnitude", "random", "wanda"] = _arg(
        "magnitude",
        "For one_shot: what a weight is worth. wanda is |w| times the norm of its inputs over --num_samples examples.",
    )
    distribution: Literal["global", "uniform", "erk", "row"] | None = _arg(
        None,
        "For one_shot and lottery_ticket: the best of all matrices together, of each at the same sparsity, of each at "
        "Erdos-Renyi densities, or of the inputs of each output. Default: global; uniform for random, row for wanda.",
    )
    pattern: str | None = _arg(
        None, "For one_shot, instead of a sparsity: KEPT:GROUP, so 2:4 keeps 2 of every 4 consecutive inputs."
    )
    inactive: Literal["frozen", "zero"] | None = _arg(
        None, "For fixed_mask: weights that do not train keep their value, or are zero. Default: as in the mask's file."
    )
    mask_file: str | None = _arg(None, "For fixed_mask: a mask file, or a run's folder or diff to take the mask from.")
    start_diff: str | None = _arg(
        None,
        "For fixed_mask: a diff whose entries train on, for example what scripts/prune_diff.py wrote. For "
        "lottery_ticket: the folder of the round before.",
    )
    start_from: Literal["values", "zero"] = _arg(
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
    gate_groups: Literal["tensor", "layer", "none"] = _arg(
        "tensor", "For diff_gates: a second gate for each tensor (structured diff pruning), each layer, or none."
    )
    fix_layer: list[int] = field(
        default_factory=list,
        metadata={"help": "For diff_gates: layers that stay as pretrained: 0 = embeddings, 1 = first block, ..."},
    )
    concrete_lower: float = _arg(-1.5, "For diff_gates: lower end of the stretched gates, at most 0.")
    concrete_upper: float = _arg(1.5, "For diff_gates: upper end of the stretched gates, at least 1.")
    gate_temperature: float = _arg(1.0, "For diff_gates: temperature of the gates' sigmoid.")
    alpha_init: float = _arg(5.0, "For diff_gates: initial logit of every gate; 5 is wide open.")
    gate_learning_rate: float = _arg(0.1, "For diff_gates: learning rate of the gates' logits.")
    gate_schedule: Literal["constant", "weights"] = _arg(
        "constant", "For diff_gates: the gates' rate stays, or follows the schedule of the weights."
    )
    gate_eps: float = _arg(
        1e-8, "For diff_gates: Adam's epsilon for the logits; decides how fast gates close that the loss does not need."
    )
    as_released: bool = _arg(
        False,
        "For diff_gates: as in the authors' code where it differs from the paper: the last training step's random "
        "gates are evaluated and saved, and a group is penalised like a single weight.",
    )

    def __post_init__(self):
        if self.method not in ("fixed_mask", "lottery_ticket") and self.start_diff is not None:
            raise ValueError(f"--start_diff goes with --method fixed_mask or lottery_ticket, not with {self.method}")
        for flag, methods in _BELONGS_TO.items():
            if getattr(self, flag) != getattr(type(self), flag) and self.method not in methods:
                raise ValueError(f"--{flag} goes with --method {' or '.join(methods)}, not with {self.method}")
        if self.pattern is not None:
            pattern_of(self.pattern)
            if self.distribution is not None or self.sparsity != type(self).sparsity:
                raise ValueError("--pattern says which share stays, and where: leave --sparsity and --distribution out")
        check_sparsity(self.sparsity)
        if not 0 < self.density <= 1:
            raise ValueError(f"--density must be in (0, 1], got {self.density}")
        if self.num_samples < 1:
            raise ValueError(f"--num_samples must be at least 1, got {self.num_samples}")


_BELONGS_TO = {
    "sparsity": ("one_shot", "lottery_ticket"),
    "distribution": ("one_shot", "lottery_ticket"),
    "criterion": ("one_shot",),
    "pattern": ("one_shot",),
    "inactive": ("fixed_mask",),
    "start_from": ("fixed_mask",),
}
"""Flags of `MethodArguments` that other methods would ignore."""


def pattern_of(text: str) -> tuple[int, int]:
    """(kept, group) of a --pattern; ValueError when it is none."""
    kept, colon, group = text.partition(":")
    if not (colon and kept.isdecimal() and group.isdecimal()):
        raise ValueError(f"--pattern is KEPT:GROUP, for example 2:4 (in quotes in a YAML), not {text!r}")
    return int(kept), int(group)


@dataclass
class MergeArguments:
    """Workers that train apart and add their updates (FISH mask, section 4.2)."""

    merge_every: int | None = _arg(
        None,
        "Train as several workers, each on its own for this many steps before their updates are merged. A worker is a "
        "process: torchrun --nproc_per_node 2 scripts/train.py ... Default: one ordinary run.",
    )
    num_workers: int | None = _arg(None, "Number of workers; needed with --simulate only.")
    simulate: bool = _arg(False, "Run the workers one after another in this one process, with the same result.")
    merge_rule: Literal["sum", "mean"] = _arg(
        "sum", "How the workers' updates of the body are merged; those of the head are always averaged."
    )
    worker_masks: Literal["disjoint", "shared"] = _arg(
        "disjoint", "Each worker has entries of its own (ranks i, i + workers, ... of the score), or all have the same."
    )
    worker_data: Literal["all", "sharded"] = _arg(
        "all", "Each worker sees all training data in its own order, or only its share. The number of steps is equal."
    )
    refresh_every: int = _arg(10, "Choose the active entries anew after this many merges; 0 = never.")
    dense_steps: int = _arg(0, "Local steps at the start in which all entries train and are merged.")

    def __post_init__(self):
        for name, least in (("merge_every", 1), ("num_workers", 1), ("refresh_every", 0), ("dense_steps", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} must be at least {least}, got {value}")
        if self.merge_every is None and (self.simulate or self.num_workers):
            raise ValueError("--num_workers and --simulate need --merge_every")
        if self.simulate and self.num_workers is None:
            raise ValueError("--simulate needs --num_workers")


@dataclass
class RunArguments(TrainingArguments):
    """Output and training: all of transformers.TrainingArguments, of which --help shows the usual ones."""

    config: str | None = _arg(
        None, "YAML with values for the flags you do not give; `none` for none. Default: configs/defaults.yaml."
    )
    output_dir: str | None = _arg(None, "Folder of this run. Default: runs/MODEL/TASK/METHOD/seedN.")
    resume_from_checkpoint: str | None = _arg(
        None,
        "`last`: go on from the last checkpoint. `auto`: the same, but start where there is none, and show the result "
        "where the run is finished. Or the path of a checkpoint.",
    )
    save_model: bool = _arg(
        False,
        "Also write OUTPUT_DIR/model: an ordinary Hugging Face model, with zeros where it is pruned, and its masks.",
    )
    overwrite: bool = _arg(False, "Delete an earlier run in the output folder first.")

    def __post_init__(self):
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.ddp_backend is None and not self.use_cpu and torch.cuda.is_available():
            # nccl needs a GPU per process; several processes on one GPU can talk over gloo
            shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
            self.ddp_backend = "gloo" if shared else None
        if self.overwrite and self.resume_from_checkpoint == "auto":
            raise ValueError("--overwrite starts anew and --resume_from_checkpoint auto goes on: give one of them")
        super().__post_init__()


@dataclass(frozen=True)
class Arguments:
    """Everything a run is told."""

    task: TaskArguments
    model: ModelArguments
    method: MethodArguments
    merge: MergeArguments
    training: RunArguments
    given: dict[str, Any]
    """The values that differ from a flag's own default, for results.json."""

    def value(self, flag: str) -> Any:
        """The value of any flag.

        Raises:
            ValueError: no such flag.
        """
        for group in (self.task, self.model, self.method, self.merge, self.training):
            if hasattr(group, flag):
                return getattr(group, flag)
        raise ValueError(f"there is no setting {flag!r}")
