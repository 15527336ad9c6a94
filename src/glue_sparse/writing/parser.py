"""The parser of all commands: a mistake is one sentence, and a value may begin with a dash."""

import re
from argparse import ArgumentError, ArgumentParser, RawDescriptionHelpFormatter, _SubParsersAction
from pathlib import Path
from typing import Any, NoReturn

from glue_sparse.writing.sentences import say
from glue_sparse.writing.words import check_one_of, closest


class Parser(ArgumentParser):
    """Ends a command with one sentence about a bad flag in the place of a page of usage.

    No flag of ours but -h has a single dash, so that `-inf` and `-1:4` are values as -1 is. Flags are typed whole, and
    a description keeps its lines.

    Args:
        passes_on: whether words that are no argument of it are left to who asked, who has others that take them.
        options: of an ArgumentParser.
    """

    def __init__(self, *args: Any, passes_on: bool = False, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": RawDescriptionHelpFormatter, **options})
        self._passes_on = passes_on
        self._negative_number_matcher = re.compile(r"-[^-]")

    def _get_value(self, action: Any, arg_string: str) -> Any:
        """Overrides the standard library's: an empty path is the folder one is in there, which nobody means by it."""
        is_verb = isinstance(action, _SubParsersAction)  # whose values are all words after it, which its parser reads
        if not arg_string and not is_verb and (action.type is Path or not action.option_strings):
            raise ArgumentError(action, "this is empty: give a value, or leave it out")
        return super()._get_value(action, arg_string)  # type: ignore[misc]

    def _check_value(self, action: Any, value: Any) -> None:
        """Overrides the standard library's, which does not say what is closest."""
        if action.choices is None or value in action.choices:
            return
        is_verb = isinstance(action, _SubParsersAction)
        try:
            check_one_of("verb" if is_verb else "value", value, [*map(str, action.choices)])
        except ValueError as error:
            raise ArgumentError(None if is_verb else action, str(error)) from error

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Overrides the standard library's, in which a verb leaves what it does not know to the parser above it."""
        found, left = super().parse_known_args(args, namespace)
        if left and not self._passes_on:
            word, flags = left[0], [flag.lstrip("-") for flag in self._option_string_actions]
            self.error(f"unknown argument {word or repr('')}{closest(word.lstrip('-'), flags, '--', otherwise='')}")
        return found, left

    def error(self, message: str) -> NoReturn:
        say(f"error: {message}{' See' if message.endswith('?') else '; see'} `{self.prog} --help`")
        self.exit(2)
