"""From a command line to values: a YAML gives defaults, flags win, unknown keys are errors. Loads no torch."""

from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

from glue_sparse.arguments.flags import Flag, check_needs, flags_of
from glue_sparse.arguments.groups import MergeArguments, ModelArguments, OutputArguments, TaskArguments
from glue_sparse.arguments.help_page import HELP, Fits, Page, fitting
from glue_sparse.arguments.layers import layered
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.arguments.trainer_flags import MAPPINGS, trainer_flags
from glue_sparse.writing.bounds import Number
from glue_sparse.writing.fields import typed
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.words import check_one_of, closest, prefixed, shown

DEFAULTS = Path(__file__).with_name("defaults.yaml")
"""Settings of the papers, by method, task and model."""
OUTPUT = "Output and training"
USUAL = {
    "seed", "learning_rate", "per_device_train_batch_size", "per_device_eval_batch_size", "num_train_epochs",
    "max_steps", "gradient_accumulation_steps", "weight_decay", "max_grad_norm", "lr_scheduler_type", "warmup_steps",
    "optim", "bf16", "fp16", "gradient_checkpointing", "eval_strategy", "save_strategy", "save_steps",
    "save_total_limit", "load_best_model_at_end", "logging_steps", "report_to", "run_name", "do_predict",
    "disable_tqdm", "use_cpu",
}  # fmt: skip
"""Flags of the Trainer that --help shows; --help_all shows the others too."""
_BOOLS = {"true": True, "yes": True, "t": True, "y": True, "1": True,
          "false": False, "no": False, "f": False, "n": False, "0": False}  # fmt: skip


class _Parser(Parser):
    """Leaves a bad flag to who asked, as a ValueError: a grid says in which of its cells it is."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


@dataclass(frozen=True)
class CommandLine:
    """What may be typed: every flag, and the names that --method and --task take.

    Attributes:
        choices: `method` or `task` -> name -> a phrase that says what it is.
        more: (title, dataclass of flags) of methods and tasks that bring flags of their own.
        fits: which flags a method or task has a use for, as its page of --help shows them.
    """

    choices: Mapping[str, Mapping[str, str]]
    more: tuple[tuple[str, type], ...] = ()
    fits: Fits = lambda kind, name, flag: True

    @cached_property
    def flags(self) -> dict[str, Flag]:
        """All flags by name, in the order of --help."""
        found = [*flags_of(TaskArguments, "Task"), *flags_of(ModelArguments, "Model")]
        found += [*flags_of(MethodArguments, "Method")]
        found += [flag for title, group in self.more for flag in flags_of(group, title)]
        found += flags_of(MergeArguments, "Workers that merge")
        ours = flags_of(OutputArguments, OUTPUT)
        theirs = [flag for flag in trainer_flags(OUTPUT) if flag.name not in {one.name for one in ours}]
        found += [*ours, *(replace(flag, rare=flag.name not in USUAL) for flag in theirs)]
        return {flag.name: self._with_choices(flag) for flag in found}

    def _with_choices(self, flag: Flag) -> Flag:
        names = self.choices.get(flag.name)
        if names is None:
            return flag
        told = "; ".join(name + (f" ({what})" if what else "") for name, what in names.items())
        return replace(flag, help=flag.help.replace("{choices}", told))

    @cached_property
    def _spellings(self) -> dict[str, str]:
        """Flag, in each of its spellings -> setting."""
        return {flag: action.dest for flag, action in self.parser()._option_string_actions.items()}

    def settings_of(self, words: Sequence[str]) -> dict[str, str]:
        """Setting -> flag as it was typed, for every known flag among the words of a command line."""
        found = [word for word in words if word.startswith("--")]
        return {self._spellings[flag]: word for word in found if (flag := word.partition("=")[0]) in self._spellings}

    def parser(
        self, description: str = "", prog: str | None = None, flags: Iterable[Flag] | None = None
    ) -> ArgumentParser:
        """The parser, without --help, of all flags or of some."""
        parser = _Parser(prog, description=description, add_help=False, formatter_class=Page, passes_on=True)
        shown = [*(self.flags.values() if flags is None else flags)]
        groups = {title: parser.add_argument_group(title) for title in dict.fromkeys(flag.group for flag in shown)}
        for flag in shown:
            action = _add(groups[flag.group], flag)
            if flag.name in self.choices:
                action.completer = partial(_completions, self.choices[flag.name])
        return parser

    def values(
        self, argv: Sequence[str], description: str = "", config: Path | None = None, prog: str | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Every setting's value, and those that differ from the flag's own default.

        The YAML holds `base`, values for every run, and `overrides`, a list of `{when: {flag: value or list}, set:
        {...}}` applied in order where every `when` matches what flags and base say. Flags win over both.

        Args:
            config: the YAML to use when `--config` is not given, `DEFAULTS` for instance.
            prog: what the command is called, for its help.
        Raises:
            ValueError: an unknown flag or key (with the closest one), a value of the wrong type.
        """
        if not {*HELP}.isdisjoint(argv):
            self._help(argv, description, config, prog)
        parser, plain = self._reader
        final = self._read(parser, argv, config)
        return final, {key: value for key, value in final.items() if value != plain[key]}

    def _help(self, argv: Sequence[str], description: str, config: Path | None, prog: str | None) -> NoReturn:
        """Show the page of all flags, or of those that the named method and task take, with what holds for them."""
        reader, _ = self._reader
        words = [word for word in argv if word not in HELP]
        first = vars(reader.parse_known_args(words)[0])
        chosen = {kind: str(first[kind]) for kind in self.settings_of(words) if kind in self.choices}
        for kind, name in chosen.items():
            check_one_of(kind, name, self.choices[kind])
        if "--help_all" in argv or not chosen:
            chosen, defaults, flags = {}, {}, self.flags.values()
        else:
            path = Path(first["config"]) if first["config"] else config
            settings = {*self.settings_of(words)}
            defaults = layered(path, first, settings, tuple(self.flags)) if path and str(path) != "none" else {}
            flags = fitting(self.flags.values(), chosen, self.fits)
            told = [f"--{kind} {name}: {self.choices[kind][name]}".rstrip(": ") for kind, name in chosen.items()]
            description = "\n".join([*told, "", "Defaults are those for what was named; --help_all shows all flags."])
        known = {flag.name: flag for flag in flags}
        parser = self.helpful(description, prog, known, chosen, everything="--help_all" in argv)
        parser.set_defaults(**_typed(parser, {key: value for key, value in defaults.items() if key in known}))
        parser.print_help()
        parser.exit()

    def _read(self, parser: ArgumentParser, argv: Sequence[str], config: Path | None) -> dict[str, Any]:
        first, unknown = parser.parse_known_args(argv)
        if unknown:
            if not unknown[0].startswith("-"):
                raise ValueError(f"{shown(unknown[0])} is no flag, and the flag before it does not take so many values")
            hint = closest(unknown[0].lstrip("-"), self.flags, "--")
            raise ValueError(f"unknown argument {unknown[0]}{hint}")
        values, on_line = vars(first), self.settings_of(argv)
        path = Path(first.config) if first.config else config
        if path and first.config != "none":
            defaults = _typed(parser, layered(path, values, {*on_line}, tuple(self.flags)))
            values |= {key: value for key, value in defaults.items() if key not in on_line}
        check_needs(self.flags, values, on_line)
        return values

    @cached_property
    def _reader(self) -> tuple[ArgumentParser, dict[str, Any]]:
        """One parser for all runs of a grid, and the values of an empty command line."""
        parser = self.helpful()
        return parser, vars(parser.parse_args([]))

    def helpful(
        self, description: str = "", prog: str | None = None, flags: Mapping[str, Flag] | None = None,
        chosen: Mapping[str, str] = {}, everything: bool = False,
    ) -> ArgumentParser:  # fmt: skip
        """The parser with --help, by default of all flags.

        Args:
            chosen: `method` or `task` -> the name that the usage says.
            everything: whether rare flags are shown.
        """
        flags = self.flags if flags is None else flags
        parser = self.parser(description, prog, flags.values())
        task, method = (chosen.get(kind, kind.upper()) for kind in ("task", "method"))
        parser.usage = f"%(prog)s --task {task} --model MODEL --method {method} [--flag value ...]"
        for action in parser._actions:  # each flag also has a spelling with dashes, which would double the page
            action.option_strings = action.option_strings[:1]
            if flags[action.dest].rare and not everything:
                action.help = SUPPRESS
        parser.add_argument("-h", "--help", action="help", help="Show this page.")
        parser.add_argument("--help_all", action="help", help="Show rare flags, and all of transformers, too.")
        return parser


def _typed(parser: ArgumentParser, values: Mapping[str, Any]) -> dict[str, Any]:
    """A YAML's values as a command line would give them."""
    actions = {action.dest: action for action in reversed(parser._actions)}  # --no_FLAG, which comes last, has no type
    return {key: _as_typed(actions[key], value) for key, value in values.items()}


def _completions(names: Mapping[str, str], **_: Any) -> Mapping[str, str]:
    """Names that a shell offers, with their phrases."""
    return names


def _add(group: Any, flag: Flag) -> Any:
    """One flag, with a spelling with dashes, and --no_FLAG for what is true by default."""
    spellings = dict.fromkeys([f"--{flag.name}", f"--{flag.name.replace('_', '-')}"])
    help = flag.help.replace("%", "%%")
    if flag.is_number:
        help += f" ({flag.bounds}; default: %(default)s)"
    options: dict[str, Any] = {"default": flag.default, "help": help, "type": flag.kind}
    if flag.choices:
        options["choices"] = flag.choices
    if flag.is_number:
        options["type"] = Number(flag.kind, flag.bounds)
    if flag.kind is str and flag.default != "":
        options["type"] = _text
    if flag.kind is bool:
        options["type"] = _bool
        if not flag.optional:
            options |= {"nargs": "?", "const": True}
    if flag.many:
        options |= {"nargs": "+", "action": _Adding if flag.repeats else "store"}
    action = group.add_argument(*spellings, *flag.aliases, **options)
    if flag.kind is bool and flag.default is True:
        no = dict.fromkeys([f"--no_{flag.name}", f"--no-{flag.name.replace('_', '-')}"])
        group.add_argument(*no, action="store_false", dest=flag.name, default=True, help=SUPPRESS)
    return action


class _Adding(Action):
    """What is given again is added; what is given at all takes the place of a YAML's values."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*([] if before is self.default else before), *values])


def _text(text: str) -> str:
    if not text:
        raise ArgumentTypeError("this is empty: give a value, or leave the flag out")
    return text


def _bool(text: str) -> bool:
    if text.lower() not in _BOOLS:
        raise ArgumentTypeError(f"{text} is neither true nor false")
    return _BOOLS[text.lower()]


def _as_typed(action: Action, value: Any) -> Any:
    """A YAML's value as a command line would give it, so that argparse checks and converts its type."""
    with prefixed(action.dest):
        if value is None and action.default is None:
            return None
        if action.nargs == "+":
            return [_converted(action, one) for one in (value if isinstance(value, list) else [value])]
        if isinstance(value, dict) and action.dest in MAPPINGS:
            return value
        return _converted(action, value)


def _converted(action: Action, value: Any) -> Any:
    value = typed(str | int | float | bool, value, "a value")
    convert: Callable[[Any], Any] = action.type if callable(action.type) else str
    try:
        found = convert(str(value))
    except (TypeError, ValueError, ArgumentTypeError) as error:
        raise ValueError(str(error)) from error
    if action.choices:
        check_one_of("value", found, [*action.choices])
    return found
