"""What mkdocs does beside its plugins: groups of pages by pattern, the pages of `--help`, links that leave the docs."""

import os
import re
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from glue_sparse.cli import main as command

HELP = "<!-- the help of every command -->"
"""Stands in a page where the help texts go."""


def on_config(config: Any) -> Any:
    """`folder/*.md` in the navigation stands for the pages there that it does not name; groups without pages go."""
    docs, named = Path(config.docs_dir), str(config.nav)

    def expanded(entry: Any) -> Any:
        if isinstance(entry, dict):
            ((name, inside),) = entry.items()
            pages = expanded(inside)
            return {name: pages} if pages else []
        if isinstance(entry, list):
            found = [expanded(one) for one in entry]
            return [page for one in found for page in (one if isinstance(one, list) else [one])]
        if "*" not in entry:
            return entry
        pages = [path.relative_to(docs).as_posix() for path in sorted(docs.glob(entry))]
        return [page for page in pages if f"'{page}'" not in named]

    config.nav = expanded(config.nav)
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in the help texts, and show a link to a file of the checkout as its path: the site has no such page."""
    if HELP in markdown:
        markdown = markdown.replace(HELP, "\n\n".join(part for name, text in helps() for part in _sections(name, text)))
    docs = Path(config.docs_dir)
    here = docs / Path(page.file.src_uri).parent

    def path(link: re.Match[str]) -> str:
        target = (here / link[2]).resolve()
        outside = target.exists() and docs.resolve() not in target.parents
        return f"`{target.relative_to(docs.resolve().parent)}`" if outside else link[0]

    return re.sub(r"\[([^\[\]]*)\]\(((?:\.\./)+[^)#\s]*)[^)]*\)", path, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Mark short code in a line, and the flags in longer code, so that no line ends within them."""
    html = re.sub(r"<code>([^<]{1,32})</code>", r'<code class="short">\1</code>', html)

    def flags(code: re.Match[str]) -> str:
        return re.sub(r"(?<!\S)--?\w[\w-]*", r'<span class="short">\g<0></span>', code[0])

    return re.sub(r"(?<=<code>)[^<]{33,}(?=</code>)", flags, html)


def helps() -> Iterator[tuple[str, str]]:
    """(words, what `--help` says after them), for `glue-sparse`, its commands and their verbs."""
    with patch.dict(os.environ, COLUMNS="92"):
        yield "glue-sparse", command.usage()
        for name in command.COMMANDS:
            yield from _helps([name])
        yield "glue-sparse train --help_all", _shown(["train", "--help_all"])[0]


def _sections(name: str, text: str) -> Iterator[str]:
    """A help text as headings and blocks, groups of flags apart, so that a search finds the group."""
    first, *groups = re.split(r"^(?=[A-Z][^\n:]*:\n +-)", text, flags=re.MULTILINE)
    yield f"## {name}\n\n```text\n{first.strip()}\n```"
    for group in groups:
        title, _, flags = group.partition(":\n")
        yield f"### {name}: {title}\n\n```text\n{flags.rstrip()}\n```"


def _helps(words: list[str]) -> Iterator[tuple[str, str]]:
    text, parsers = _shown([*words, "--help"])
    yield " ".join(["glue-sparse", *words]), text
    verbs = {verb for p in parsers for a in p._actions if isinstance(a, _SubParsersAction) for verb in a.choices}
    for verb in sorted(verbs):
        yield from _helps([*words, verb])


def _shown(words: list[str]) -> tuple[str, list[ArgumentParser]]:
    """What a command prints, and the parsers that print it."""
    shown, written = [], StringIO()
    printed = ArgumentParser.print_help

    def print_help(self: ArgumentParser, file: Any = None) -> None:
        shown.append(self)
        printed(self, file)

    with patch.object(ArgumentParser, "print_help", print_help), redirect_stdout(written), suppress(SystemExit):
        command.main(words)
    return written.getvalue().strip(), shown
