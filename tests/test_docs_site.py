"""What `docs/hooks.py` and `docs/sections.py` do to the pages of the site."""

import json
import runpy
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from documented import ROOT
from glue_sparse.cli.main import COMMANDS

DOCS = ROOT / "docs"
HOOKS: dict[str, Any] = runpy.run_path(str(DOCS / "hooks.py"))


def on_page(markdown: str, place: str) -> str:
    config, page = SimpleNamespace(docs_dir=str(DOCS)), SimpleNamespace(file=SimpleNamespace(src_uri=place))
    return HOOKS["on_page_markdown"](markdown, page, config, None)


def test_patterns_find_the_pages_that_the_navigation_does_not_name(tmp_path: Path):
    for name in ("a.md", "b.md", "c.md", "more/z.md", "more/y.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    nav = [{"Start": "b.md"}, {"More": "more/*.md"}, {"None": "none/*.md"}, {"Rest": ["c.md", "*.md"]}]
    config = HOOKS["on_config"](SimpleNamespace(docs_dir=str(tmp_path), nav=nav))
    assert config.nav == [{"Start": "b.md"}, {"More": ["more/y.md", "more/z.md"]}, {"Rest": ["c.md", "a.md"]}]


def test_every_command_and_verb_is_on_its_page():
    page = on_page((DOCS / "reference/command_line.md").read_text(), "reference/command_line.md")
    assert HOOKS["HELP"] not in page
    headings = {line for line in page.splitlines() if line.startswith("#")}
    assert {f"## glue-sparse {name}" for name in COMMANDS} <= headings
    assert "## glue-sparse diff apply" in headings and "### glue-sparse train: Method" in headings
    assert "--density DENSITY" in page and "--torch_compile" in page


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("[facts](../../pyproject.toml)", "`pyproject.toml`"),
        ("[home](../index.md)", "[home](../index.md)"),
        ("[dead](../../nothing.toml)", "[dead](../../nothing.toml)"),  # which mkdocs complains about
    ],
)
def test_links_that_leave_the_docs_become_paths(link: str, shown: str):
    assert on_page(f"See {link}.", "results/x.md") == f"See {shown}."


def test_short_code_is_kept_whole():
    mark = HOOKS["on_page_content"]
    assert mark("<p><code>--help</code></p>", None, None, None) == '<p><code class="short">--help</code></p>'
    assert mark(f"<code>{'a ' * 20}</code>", None, None, None) == f"<code>{'a ' * 20}</code>"
    long = mark(f"<code>{'a ' * 20}--flag 1 a-b</code>", None, None, None)
    assert long == f"<code>{'a ' * 20}<span class=\"short\">--flag</span> 1 a-b</code>"


def test_sections_of_docstrings_are_set_apart():
    sections = runpy.run_path(str(DOCS / "sections.py"))["Sections"]()
    docstring = SimpleNamespace(value="One.\n\nArgs:\n    a: of it.\nRaises:\n    ValueError: bad.")
    sections.on_object(obj=SimpleNamespace(docstring=docstring))
    assert docstring.value == "One.\n\nArgs:\n    a: of it.\n\nRaises:\n    ValueError: bad."


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("--merge_every", "*merge_every"),
        ("pin_memory", "*pin_memory"),
        ("--density", "density"),
        ("bit for bit", "bit for bit"),
        ("fish -random", "fish random"),
    ],
)
@pytest.mark.skipif(not shutil.which("node"), reason="runs the script of the page")
def test_the_search_takes_flags_and_parts_of_names(typed: str, asked: str):
    program = f"""
        globalThis.Worker = class {{ postMessage(message) {{ console.log(JSON.stringify(message)) }} }}
        {(DOCS / "search.js").read_text()}
        new Worker().postMessage({{type: 2, data: {json.dumps(typed)}}})
        new Worker().postMessage({{type: 0, data: {json.dumps(typed)}}})
    """
    shown = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True).stdout
    assert [json.loads(line)["data"] for line in shown.splitlines()] == [asked, typed]


def test_a_sentence_of_a_help_text_is_no_heading():
    text = "Show this: for example:\n    glue-sparse x\n\nShow all, for example:\n\n    x\n\nRuns:\n  --y Y  of it"
    parts = [*HOOKS["_sections"]("glue-sparse x", text)]
    assert [part.splitlines()[0] for part in parts] == ["## glue-sparse x", "### glue-sparse x: Runs"]
