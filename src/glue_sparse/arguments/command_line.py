"""From a command line to arguments: a YAML gives defaults, flags win, unknown keys are errors."""

from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser

from glue_sparse.arguments.groups import (
    Arguments,
    MergeArguments,
    MethodArguments,
    ModelArguments,
    RunArguments,
    TaskArguments,
)
from glue_sparse.writing.words import check_one_of, closest, prefixed

USUAL = {
    "config", "output_dir", "overwrite", "save_model", "delta_checkpoints", "resume_from_checkpoint", "seed",
    "learning_rate",
    "per_device_train_batch_size", "per_device_eval_batch_size", "num_train_epochs", "max_steps",
    "gradient_accumulation_steps", "weight_decay", "max_grad_norm", "lr_scheduler_type", "warmup_steps", "optim",
    "bf16", "fp16", "gradient_checkpointing", "eval_strategy", "save_strategy", "save_steps", "save_total_limit",
    "load_best_model_at_end", "logging_steps", "report_to", "run_name", "do_predict", "disable_tqdm", "use_cpu",
}  # fmt: skip
"""Flags of `RunArguments` that --help shows; --help_all shows the others too."""

RARE = {
    "concrete_lower", "concrete_upper", "gate_temperature", "gate_schedule", "gate_eps", "gate_learning_rate",
    "alpha_init", "n_best_size", "max_answer_length", "erk_power", "tensor_density", "regrown", "legacy_decay",
    "update_until", "drop_schedule", "update_rule", "redistribute", "variance", "max_predict_samples", "fisher_power",
    "from_scratch", "block_norm", "grow", "entrants", "weight_init", "group_lasso", "sparse_weight_decay", "num_phases",
    "first_phase", "selection", "streaming", "hub_dataset", "tokenizer", "doc_stride", "start_mask", "refresh_every",
    "dense_steps", "gate_groups", "fix_layer", "as_released",
}  # fmt: skip
"""Flags of the other groups that --help leaves to --help_all."""


class _Parser(HfArgumentParser):
    """Reports a bad flag as a ValueError with one sentence instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parser(description: str = "") -> _Parser:
    groups = (TaskArguments, ModelArguments, MethodArguments, MergeArguments, RunArguments)
    titles = ("Task", "Model", "Method", "Workers that merge", "Output and training")
    for group, title in zip(groups, titles, strict=True):
        group._argument_group_name = title  # pyright: ignore  # read by HfArgumentParser
    return _Parser(groups, description=description, allow_abbrev=False, add_help=False)  # pyright: ignore


def settings_of(words: Sequence[str]) -> dict[str, str]:
    """Setting -> flag as it was typed, for every known flag among the words of a command line; aliases are resolved."""
    settings, typed = _flags(), [word for word in words if word.startswith("--")]
    return {settings[flag]: word for word in typed if (flag := word.partition("=")[0]) in settings}


@lru_cache(maxsize=1)
def _flags() -> dict[str, str]:
    """Flag, in each of its spellings -> setting."""
    return {flag: action.dest for flag, action in _parser()._option_string_actions.items()}


def parse(argv: list[str], description: str = "", config: Path | None = None) -> Arguments:
    """Arguments from a command line and the YAML it names.

    The YAML holds `base`, values for every run, and `overrides`, a list of `{when: {flag: value or list}, set: {...}}`
    applied in order where every `when` matches what flags and base say. Flags win over both.

    Args:
        config: the YAML to use when `--config` is not given.
    Raises:
        ValueError: an unknown flag or key (with the closest one), a value of the wrong type, a contradiction.
    """
    parser = _parser(description)
    flags = [action.dest for action in parser._actions]
    plain = vars(parser.parse_args([]))
    _add_help(parser, argv)
    on_line = set(settings_of(argv))
    first, unknown = parser.parse_known_args(argv)
    if unknown:
        raise ValueError(f"unknown argument {unknown[0]}{closest(unknown[0].lstrip('-'), flags, '--')}")
    path = Path(first.config) if first.config else config
    if path and first.config != "none":
        defaults = _layered(path, vars(first), on_line, flags)
        actions = {action.dest: action for action in parser._actions}
        parser.set_defaults(**{key: _as_typed(actions[key], value) for key, value in defaults.items()})
    final = vars(parser.parse_args(argv))
    given = {key: value for key, value in final.items() if value != plain[key]}
    final["output_dir"] = final["output_dir"] or _default_folder(final)
    task, model, method, merge, training = parser.parse_dict(final)
    return Arguments(task, model, method, merge, training, given)


def _default_folder(values: dict[str, Any]) -> str:
    method = values["method"]
    if method == "lottery_ticket":
        method += f"-{values['sparsity']}"
    elif values["start_diff"]:
        method += f"-{Path(values['start_diff']).name}"
    elif method == "one_shot":
        parts = (values["criterion"], values["distribution"], values["pattern"] or values["sparsity"])
        method = "-".join([method, *(str(part).replace(":", "of") for part in parts if part is not None)])
    elif method not in ("dense", "bitfit", "diff_gates"):
        method += f"-{values['density']}"
    return f"runs/{Path(values['model'] or 'model').name}/{values['task'] or 'task'}/{method}/seed{values['seed']}"


def _add_help(parser: ArgumentParser, argv: list[str]) -> None:
    parser.usage = "%(prog)s --task TASK --model MODEL --method METHOD [--flag value ...]"
    for action in parser._actions:  # each flag also has a spelling with dashes, which would double the page
        action.option_strings = action.option_strings[:1]
    parser.add_argument("-h", "--help", action="help", help="Show this page.")
    parser.add_argument("--help_all", action="help", help="Show rare flags, and all of transformers, too.")
    if "--help_all" in argv:
        return
    for group in parser._action_groups:
        for action in group._group_actions:
            shown = action.dest in USUAL if group.title == "Output and training" else action.dest not in RARE
            action.help = action.help if shown else SUPPRESS


@lru_cache(maxsize=8)
def _read_yaml(text: str) -> Any:
    """What a YAML says, parsed once for the many runs of a grid; not to be changed."""
    return yaml.safe_load(text)


def _layered(path: Path, values: dict[str, Any], on_line: set[str], flags: list[str]) -> dict[str, Any]:
    """Defaults that the YAML gives for these values: its base, then every override that matches."""
    try:
        config = _read_yaml(path.read_text())
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
    with prefixed(str(path)):
        for key in keys:
            check_one_of("key", key, flags, otherwise="see --help")


def _as_typed(action: Action, value: Any) -> Any:
    """A YAML's value as a command line would give it, so that argparse checks and converts its type."""
    if action.nargs != "+":
        return str(value) if isinstance(value, int | float) else value
    convert = action.type if callable(action.type) else str
    try:
        return [convert(one) for one in (value if isinstance(value, list) else [value])]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{action.dest}: {error}") from error
