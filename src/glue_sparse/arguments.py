"""Arguments of a run as dataclasses: YAML gives defaults, flags win, unknown keys are errors."""

import os
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments


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
        "A GLUE task (cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb, wnli), `tweets` (inside the `offline` "
        "extra), or `file` for your own --train_file and --validation_file.",
    )
    data_dir: str | None = _arg(
        None, "Folder with the task in GLUE's TSV layout (RTE/train.tsv, ...). Default: the hub."
    )
    train_file: str | None = _arg(None, "Your own training data: .csv, .tsv, .jsonl/.json or .parquet.")
    validation_file: str | None = _arg(None, "Your own validation data, same columns.")
    test_file: str | None = _arg(None, "Your own unlabelled data for --do_predict.")
    text_columns: list[str] = field(
        default_factory=lambda: ["text"], metadata={"help": "One or two text columns of your own files."}
    )
    label_column: str = _arg("label", "Label column of your own files; numbers with a fraction mean regression.")
    max_length: int = _arg(128, "Longest input in tokens; longer ones are cut, shorter ones padded per batch.")
    max_train_samples: int | None = _arg(None, "Use only this many training examples (drawn by --seed).")
    max_eval_samples: int | None = _arg(None, "Use only the first this many examples of each validation split.")
    max_predict_samples: int | None = _arg(None, "Use only the first this many examples of each test split.")


@dataclass
class MethodArguments:
    """Which entries are active."""

    method: str = _arg("fish", "dense, fish, random, bitfit, magnitude, or fixed_mask (with --mask_file).")
    density: float = _arg(
        0.005, "Active fraction of all entries, head included, in (0, 1]; for fish, random and magnitude."
    )
    tensors: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Shell patterns of the tensors that may hold active entries, for example '*.encoder.*'; the budget "
            "stays. Default: all but the head. For fish, random and magnitude."
        },
    )
    num_samples: int = _arg(1024, "Training examples used for a score.")
    fisher_estimator: Literal["label", "expected", "sampled"] = _arg(
        "label",
        "Whose labels the Fisher uses: the data set's, the exact expectation over the model's classes, or one drawn "
        "from the model.",
    )
    fisher_power: Literal["square", "absolute"] = _arg("square", "Square of each gradient, or absolute value.")
    mask_file: str | None = _arg(None, "For fixed_mask: a mask file, or a run's folder or diff to take the mask from.")

    def __post_init__(self):
        if not 0 < self.density <= 1:
            raise ValueError(f"--density must be in (0, 1], got {self.density}")
        if self.num_samples < 1:
            raise ValueError(f"--num_samples must be at least 1, got {self.num_samples}")


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
        None, "YAML with values for the flags you do not give; `none` for none. Default: configs/glue.yaml."
    )
    output_dir: str | None = _arg(None, "Folder of this run. Default: runs/MODEL/TASK/METHOD/seedN.")
    overwrite: bool = _arg(False, "Delete an earlier run in the output folder first.")

    def __post_init__(self):
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.ddp_backend is None and not self.use_cpu and torch.cuda.is_available():
            # nccl needs a GPU per process; several processes on one GPU can talk over gloo
            shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
            self.ddp_backend = "gloo" if shared else None
        super().__post_init__()


USUAL = {
    "config", "output_dir", "overwrite", "resume_from_checkpoint", "seed", "learning_rate",
    "per_device_train_batch_size", "per_device_eval_batch_size", "num_train_epochs", "max_steps",
    "gradient_accumulation_steps", "weight_decay", "max_grad_norm", "lr_scheduler_type", "warmup_steps", "optim",
    "bf16", "fp16", "gradient_checkpointing", "eval_strategy", "save_strategy", "save_steps", "save_total_limit",
    "load_best_model_at_end", "logging_steps", "report_to", "run_name", "do_predict", "disable_tqdm", "use_cpu",
}  # fmt: skip
"""Flags of `RunArguments` that --help shows; --help_all shows the others too."""


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


class _Parser(HfArgumentParser):
    """Reports a bad flag as a ValueError with one sentence instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parse(argv: list[str], description: str = "", config: Path | None = None) -> Arguments:
    """Arguments from a command line and the YAML it names.

    The YAML holds `base`, values for every run, and `overrides`, a list of `{when: {flag: value or list}, set: {...}}`
    applied in order where every `when` matches what flags and base say. Flags win over both.

    Args:
        config: the YAML to use when `--config` is not given.
    Raises:
        ValueError: an unknown flag or key (with the closest one), a value of the wrong type, a contradiction.
    """
    groups = (TaskArguments, ModelArguments, MethodArguments, MergeArguments, RunArguments)
    titles = ("Task", "Model", "Method", "Workers that merge", "Output and training")
    for group, title in zip(groups, titles, strict=True):
        group._argument_group_name = title  # pyright: ignore  # read by HfArgumentParser
    parser = _Parser(groups, description=description, allow_abbrev=False, add_help=False)  # pyright: ignore
    flags = [action.dest for action in parser._actions]
    plain = vars(parser.parse_args([]))
    _add_help(parser, argv)
    first, unknown = parser.parse_known_args(argv)
    if unknown:
        raise ValueError(f"unknown argument {unknown[0]}{closest(unknown[0].lstrip('-'), flags, '--')}")
    path = Path(first.config) if first.config else config
    if path and first.config != "none":
        defaults = _layered(path, vars(first), _on_line(argv), flags)
        parser.set_defaults(**{key: _as_text(value) for key, value in defaults.items()})
    final = vars(parser.parse_args(argv))
    given = {key: value for key, value in final.items() if value != plain[key]}
    final["output_dir"] = final["output_dir"] or _default_folder(final)
    task, model, method, merge, training = parser.parse_dict(final)
    return Arguments(task, model, method, merge, training, given)


def _default_folder(values: dict[str, Any]) -> str:
    method = values["method"] if values["method"] in ("dense", "bitfit") else f"{values['method']}-{values['density']}"
    return f"runs/{Path(values['model'] or 'model').name}/{values['task'] or 'task'}/{method}/seed{values['seed']}"


def _add_help(parser: ArgumentParser, argv: list[str]) -> None:
    parser.usage = "%(prog)s --task TASK --model MODEL --method METHOD [--flag value ...]"
    for action in parser._actions:  # each flag also has a spelling with dashes, which would double the page
        action.option_strings = action.option_strings[:1]
    parser.add_argument("-h", "--help", action="help", help="Show this page.")
    parser.add_argument("--help_all", action="help", help="Show all training flags of transformers too.")
    if "--help_all" in argv:
        return
    training = next(group for group in parser._action_groups if group.title == "Output and training")
    for action in training._group_actions:
        if action.dest not in USUAL:
            action.help = SUPPRESS


def _on_line(argv: list[str]) -> set[str]:
    return {word[2:].partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")}


def _layered(path: Path, values: dict[str, Any], on_line: set[str], flags: list[str]) -> dict[str, Any]:
    """Defaults that the YAML gives for these values: its base, then every override that matches."""
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read --config {path}: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict) or config.keys() - {"base", "overrides"}:
        raise ValueError(f"{path} may hold `base` and `overrides` only")
    defaults = dict(config.get("base") or {})
    _known(defaults, flags, path)
    for override in config.get("overrides") or []:
        if not isinstance(override, dict) or override.keys() != {"when", "set"}:
            raise ValueError(f"{path}: an override needs exactly `when` and `set`")
        _known({**override["when"], **override["set"]}, flags, path)
        current = {**values, **{k: v for k, v in defaults.items() if k not in on_line}}
        if all(current[key] in (want if isinstance(want, list) else [want]) for key, want in override["when"].items()):
            defaults.update(override["set"])
    return defaults


def _known(keys: dict[str, Any], flags: list[str], path: Path) -> None:
    for key in keys:
        if key not in flags:
            raise ValueError(f"{path}: unknown key {key!r}{closest(key, flags)}")


def closest(word: str, flags: Iterable[str], prefix: str = "", otherwise: str = "; see --help") -> str:
    """The end of a message about an unknown word: the closest known one, or `otherwise`."""
    close = get_close_matches(word.partition("=")[0], list(flags), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else otherwise


def _as_text(value: Any) -> Any:
    """Scalars as a command line would give them, so that argparse checks and converts their type."""
    return str(value) if isinstance(value, int | float) else value
