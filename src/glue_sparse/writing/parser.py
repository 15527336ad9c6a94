"""The parser of all commands: a mistake is one sentence, and a value may begin with a dash."""

import re
from argparse import ArgumentError, ArgumentParser, _SubParsersAction
from pathlib import Path
from typing import Any, NoReturn

from glue_sparse.writing.sentences import say
from glue_sparse.writing.words import check_one_of, closest


class Parser(ArgumentParser):
    """Ends a command with one sentence about a bad flag in the place of a page of usage.

    No flag of ours but -h has a single dash, so that `-inf` and `-1:4` are values as -1 is.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._negative_number_matcher = re.compile(r"-[^-]")

    def _get_value(self, action: Any, arg_string: str) -> Any:
        """Overrides the standard library's: an empty path is the folder one is in there, which nobody means by it."""
        if not arg_string and (action.type is Path or not action.option_strings):
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

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Overrides the standard library's, which does not say what is closest to an unknown flag."""
        found, left = self.parse_known_args(args, namespace)
        if left:
            self.error(f"unknown argument {left[0]}{closest(left[0].lstrip('-'), self._names(), '--', otherwise='')}")
        return found

    def _names(self) -> list[str]:
        """All flags without their dashes, those of verbs too."""
        below = [one for action in self._actions if isinstance(action, _SubParsersAction)
                 for one in action.choices.values()]  # fmt: skip
        return [flag.lstrip("-") for parser in (self, *below) for flag in parser._option_string_actions]

    def error(self, message: str) -> NoReturn:
        say(f"error: {message}{' See' if message.endswith('?') else '; see'} `{self.prog} --help`")
        self.exit(2)
