"""Pages of results: text by hand around blocks that a command writes, between `results: COMMAND` and `end`.

<!-- results: table fish_rates --model minilm -->
...
<!-- end -->
"""

import re
from collections.abc import Callable
from pathlib import Path

from glue_sparse.writing.words import prefixed

_BLOCK = re.compile(r"(<!-- results: (?P<asks>[^\n]+?) -->\n)(?P<inside>.*?)(<!-- end -->)", re.DOTALL)
_BEGIN = re.compile(r"<!-- results: (?!by hand)")
BY_HAND = "<!-- results: by hand -->"
"""In a page without blocks: it was written before result files were kept."""


def blocks(text: str) -> list[str]:
    """What each block of a page asks for; `table GRID ...` for example."""
    return [found["asks"] for found in _BLOCK.finditer(text)]


def status(text: str) -> str:
    """What is generated in a page, in words.

    Raises:
        ValueError: nothing, without a word about it; or a block has no end.
    """
    asked = blocks(text)
    if len(asked) != len(_BEGIN.findall(text)):
        raise ValueError("a block does not end: put <!-- end --> on a line behind it")
    if bool(asked) == (BY_HAND in text):
        raise ValueError(f"a page has blocks, <!-- results: COMMAND --> to <!-- end -->, or else says {BY_HAND}")
    return ", ".join(f"`{one}`" for one in asked) or "written by hand before result files were kept"


def built(text: str, render: Callable[[str], str]) -> str:
    """A page with its blocks written anew.

    Args:
        render: what a block asks for -> its markdown.
    """

    def block(found: re.Match[str]) -> str:
        with prefixed(found["asks"]):
            return f"{found[1]}\n{render(found['asks']).strip()}\n\n{found[4]}"

    return _BLOCK.sub(block, text)


def pages(folder: Path) -> list[Path]:
    """The pages of a folder, in order.

    Raises:
        ValueError: there is none.
    """
    found = sorted(folder.glob("*.md"))
    if not found:
        raise ValueError(f"{folder} holds no page of results: give the folder of the pages as `pages`")
    return found


def statuses(folder: Path) -> dict[Path, str]:
    """Page -> what is generated in it; raises as `status`, and names the page."""
    found = {}
    for path in pages(folder):
        with prefixed(str(path)):
            found[path] = status(path.read_text())
    return found
