"""What docs/troubleshooting.md says that the program prints is what the source has, name by name."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
QUOTED = re.findall(r"^> (.*)$", PAGE, flags=re.MULTILINE)


@cache
def literals() -> tuple[str, ...]:
    """All texts of the source, an ellipsis for what is filled in, without the marks of parameters."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "src").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    plain = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    filled = ["".join(str(v.value) if isinstance(v, ast.Constant) else "..." for v in node.values)
              for node in nodes if isinstance(node, ast.JoinedStr)]  # fmt: skip
    return tuple(unmarked(re.sub(r"%(?:\.\d)?[dsgf]", "...", text)) for text in (*plain, *filled))


def unmarked(text: str) -> str:
    return text.replace("`", "").replace("--", "")


def in_source(quoted: str) -> bool:
    """Whether a text of the source has the words of a quoted sentence, in their order."""
    parts = [re.escape(part.strip()) for part in unmarked(quoted).split("...") if part.strip()]
    wanted = re.compile(r"(?:.*?\.\.\..*?|\s*)".join(parts), flags=re.DOTALL)
    return any(wanted.search(text) for text in literals())


@pytest.mark.parametrize("quoted", QUOTED)
def test_the_program_says_so(quoted: str):
    assert len(re.sub(r"\.\.\.|\W", "", quoted)) > 10, "too few words to tell a sentence by"
    assert in_source(quoted), quoted


def test_a_sentence_of_no_program_is_found_out():
    assert len(QUOTED) > 30 and not in_source("the moon is too near: wait until it has gone")
    assert not in_source("... holds a finished run: add --overwrite to replace it, or sing")
