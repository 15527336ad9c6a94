"""How sub-commands that load models go: the line is read first, and what does the work is imported only then."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from glue_sparse.arguments.registry import imported
from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.trust import as_told
from glue_sparse.records.folder import held
from glue_sparse.writing.parser import Parser


def add_verb(verbs: Any, name: str, does: str, help: str, **options: Any) -> Parser:
    """One verb of a sub-command.

    Args:
        verbs: what `add_subparsers` gave.
        does: see `run`.
        options: of the verb's parser.
    """
    verb = verbs.add_parser(name, help=help, **options)
    verb.set_defaults(does=does)
    return verb


_OURS = ("verb", "does", "checks", "trust_remote_code")
"""What the line says to commands, and not to what does their work."""


def run(parser: Parser, argv: Sequence[str] | None = None) -> int:
    """Read a command line and do what it says; help and wrong flags end it before anything heavy is imported.

    Args:
        parser: it, or each of its verbs, has a default `does`: the text `module:function` of what takes its values by
            their names and returns an exit status, or None for 0. A default `checks`, name of a value -> a function
            that raises a ValueError for what cannot be read, is seen to before that is imported.
        argv: by default that of the process.
    """
    arguments = parser.parse_args(argv)
    told = {name: value for name, value in vars(arguments).items() if name not in _OURS}
    with one_sentence(Namespace(**told)), held(told.get("folder")), as_told(arguments):
        for name, check in getattr(arguments, "checks", {}).items():
            value = told.get(name)
            for one in value if isinstance(value, list) else [value] if value is not None else []:
                check(one)
        return imported(arguments.does)(**told) or 0
    return 1
