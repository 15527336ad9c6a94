"""What errors say: parameters by name in the library, flags at the command line, tracebacks of what is no sentence."""

import ast
import re
from pathlib import Path

import pytest

from glue_sparse.core.tiles import check
from glue_sparse.experiments.told import command_line
from glue_sparse.writing.ending import as_typed, one_sentence

PACKAGE = Path(__file__).parents[2] / "src" / "glue_sparse"
LIBRARY = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"arguments", "cli", "benchmarks", "__pycache__"}
TOLD_BY_FLAGS = {"methods/builders.py", "methods/registry.py"}
"""The only two files of methods that know flags."""


def test_the_library_names_parameters_without_dashes():
    found = []
    for path in (path for package in LIBRARY for path in (PACKAGE / package).rglob("*.py")):
        if str(path.relative_to(PACKAGE)) not in TOLD_BY_FLAGS:
            raised = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)]
            texts = [(node.lineno, ast.unparse(node).replace("--nproc_per_node", "")) for node in raised]
            found += [f"{path}:{line}" for line, text in texts if re.search(r"(?<![\w-])--[a-z{]", text)]
    assert found == []


def test_a_command_writes_parameters_as_they_are_typed(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended, one_sentence(2, lambda: command_line().flags):
        check("a matrix", (3, 4), 2)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: tiles of 2x2 do not divide") and said.endswith("choose another --block_size\n")
    assert as_typed("use the `label` Fisher and `density`", {"density"}) == "use the `label` Fisher and --density"


def test_an_error_that_is_not_ours_shows_where_it_is_from(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended, one_sentence():
        int("no number")
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "Traceback" in said and "ValueError: invalid literal" in said
    assert said.splitlines()[-1] == "error: invalid literal for int() with base 10: 'no number'"
    with pytest.raises(SystemExit), one_sentence():
        Path("no such file").read_text()  # the user can mend that
    assert "Traceback" not in capsys.readouterr().err
