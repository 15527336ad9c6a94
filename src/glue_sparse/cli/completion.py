"""Completion of a command line by argcomplete: of the commands, or, once one is typed, of its verbs and flags."""

import os
from collections.abc import Mapping
from importlib import import_module

from argcomplete import autocomplete
from argcomplete.lexers import split_line

from glue_sparse.writing.parser import Parser


def complete(commands: Mapping[str, tuple[str, str]]) -> None:
    """Answer the shell, which asks by environment variables, and end the process.

    Args:
        commands: name -> module of this package, and what it does; only the module of the typed one is imported.
    """
    start = int(os.environ["_ARGCOMPLETE"])  # which word, from 1 on, is the program
    words = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3]
    typed = words[start] if len(words) > start else ""
    if typed in commands:
        os.environ["_ARGCOMPLETE"] = str(start + 1)
        parser = import_module(f"glue_sparse.cli.{commands[typed][0]}").parser()
    else:
        parser = Parser()
        parser.add_argument("--version", action="store_true")
        verbs = parser.add_subparsers()
        for name, (_, what) in commands.items():
            verbs.add_parser(name, help=what)
    autocomplete(parser, print_suppressed=True)
