"""What errors say: parameters by name in the library, flags at the command line, tracebacks of what is no sentence."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from glue_sparse.core.tiles import check
from glue_sparse.experiments.told import command_line, parse
from glue_sparse.writing import ending
from glue_sparse.writing.ending import as_typed, one_sentence
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.sentences import say, sentence

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


LONG = "/tmp/" + "é" * 3000
ENDINGS = [
    OSError(36, "File name too long", LONG), ValueError(f"cannot read {LONG}: [Errno 36] File name too long: '{LONG}'"),
    ValueError("unknown word " + "a b " * 900 + "; see --help"), FileNotFoundError(2, "No such file", "a\nb"),
    ValueError("no file a\nb\r\x1b[31m\u2028: give another"), OSError("first line\n  second line"),
]  # fmt: skip


@pytest.mark.parametrize("error", ENDINGS, ids=range(len(ENDINGS)))
def test_what_ends_a_command_is_one_line_of_bounded_length(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ending, "OURS", Path(__file__).parent)  # as if a file of ours raised it
    with pytest.raises(SystemExit), one_sentence():
        raise error
    said = capsys.readouterr().err
    assert said.endswith("\n") and len(said.splitlines()) == 1 and len(said) <= 301 and said[:-1].isprintable()


def test_a_sentence_keeps_its_start_and_its_end():
    assert sentence("short, and as it was") == "short, and as it was"
    told = sentence(f"cannot read {LONG}: it is no grid; give another file")
    assert told.startswith("cannot read /tmp/é") and told.endswith("é: it is no grid; give another file")
    told = sentence("what is wrong: " + "a b " * 900 + ": what to do")
    assert told.startswith("what is wrong: a b") and told.endswith("b : what to do") and len(told) == 300


def test_a_sentence_stands_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit), one_sentence():
        for _ in tqdm(range(3), desc="weights"):
            raise OSError("no such model")
    assert capsys.readouterr().err.splitlines()[-1] == "error: no such model"


def test_a_bad_flag_of_any_command_is_one_sentence(capsys: pytest.CaptureFixture[str]):
    parser = Parser("prog")
    parser.add_argument("--kind", choices=[f"choice{i}" for i in range(100)])
    parser.add_argument("--value", type=float)
    for words in (["--kind", "x"], ["--kind", "a\nb" * 400], ["--value"], ["--" + "x" * 4000]):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args(words)
        said = capsys.readouterr().err
        assert ended.value.code == 2 and said.startswith("error: ") and said.endswith("see `prog --help`\n")
        assert len(said.splitlines()) == 1 and len(said) <= 301


@pytest.mark.parametrize("text", ["-inf", "-nan", "-1e-3", "-1"])
def test_a_value_may_begin_with_a_dash(text: str):
    parser = Parser()
    parser.add_argument("--value", type=float)
    assert str(parser.parse_args(["--value", text]).value) == str(float(text))
    parser.add_argument("--pattern")
    assert parser.parse_args(["--pattern", "-1:4"]).pattern == "-1:4"


@pytest.mark.parametrize("flag", ["model", "start_diff", "output_dir", "run_name"])
def test_an_empty_text_is_no_value(flag: str):
    with pytest.raises(ValueError, match=f"--{flag}: this is empty: give a value, or leave the flag out"):
        parse([f"--{flag}", ""])


def test_a_bar_that_is_just_being_opened_gets_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    refresh = tqdm.refresh

    def stopped(bar: Any, *args: Any, **kwargs: Any) -> None:
        refresh(bar, *args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tqdm, "refresh", stopped)
        with pytest.raises(KeyboardInterrupt) as held:
            tqdm(total=3)
    say("error: it is so")
    assert held.value.__traceback__ is not None
    assert capsys.readouterr().err.splitlines()[-1] == "error: it is so"
