"""Every command and verb: help and the sentence about a mistake come fast, without torch and what else is heavy."""

import ast
import json
import subprocess
import sys
from argparse import _SubParsersAction
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from glue_sparse.cli.main import COMMANDS, main
from glue_sparse.writing.parser import Parser
from small_grids import write

LIGHT = """
import json, sys
from time import process_time
from glue_sparse.cli.main import main
heavy = {"torch", "transformers", "datasets", "matplotlib", "sklearn", "scipy", "pandas"}
for line in json.loads(sys.argv[1]):
    started, status = process_time(), 0
    try:
        status = main(line)
    except SystemExit as ended:
        status = ended.code
    assert bool(status) == (line[-1] != "--help"), (line, status)
    assert process_time() - started < 0.5, (line, process_time() - started)
    assert not heavy & {*sys.modules}, (line, heavy & {*sys.modules})
"""
"""CPU time, in one process: the first lines pay for the imports."""


def parsers() -> Iterator[tuple[list[str], Parser]]:
    """The words of each verb, or of a command that has none, and what parses the others."""
    for name, (module, _) in COMMANDS.items():
        parser = import_module(f"glue_sparse.cli.{module}").parser(f"glue-sparse {name}")
        verbs = [action.choices for action in parser._actions if isinstance(action, _SubParsersAction)]
        yield from (([name, verb], below) for verb, below in verbs[0].items()) if verbs else [([name], parser)]


def mistake(parser: Parser) -> str:
    """A flag that needs a value, which it will not get, or one that does not exist."""
    valued = [action for action in parser._actions if action.option_strings and action.nargs in (None, "+")]
    return valued[0].option_strings[0] if valued else "--no_such_flag"


def test_help_and_mistakes_load_nothing_heavy():
    lines = [["--help"], ["tabel"], ["train", "--method", "rigl", "--help"], ["train", "--densty", "1"]]
    for words, parser in parsers():
        lines += [[words[0], "--help"], [*words, "--help"], [*words, mistake(parser)]]
    done = subprocess.run([sys.executable, "-c", LIGHT, json.dumps(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stderr.splitlines()) == sum(line[-1] != "--help" for line in lines) > 20


def test_what_is_not_there_or_in_the_way_is_known_without_anything_heavy(tmp_path: Path):
    lines = [f"diff {verb} runs/no/where {more}".split() for verb, more in (
        ("show", ""), ("apply", "out"), ("compare", "b"), ("figure", ""), ("storage", ""),
        ("deltas", ""), ("restore", "out"), ("prune", "out --density 0.1")
    )]  # fmt: skip
    lines += [["masks", "show", "runs/no/where"], ["zero-shot", "--model", "gpt2", "--text_file", "nowhere.txt"]]
    (tmp_path / "full").mkdir()
    full = str(tmp_path)
    lines += [["diff", "apply", full, full], ["diff", "restore", full, full], ["diff", "pull", "me/mine", full]]
    told = ["train", "--model", "minilm", "--task"]
    lines += [[*told, "rte", "--data_dir", "nowhere"], [*told, "file"], [*told, "tweet"]]
    lines.insert(-2, [*told, "file", "--train_file", "no.csv", "--validation_file", "no.csv"])
    done = subprocess.run([sys.executable, "-c", LIGHT, json.dumps(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    sentences = ["error: runs/no/where does not exist"] * 9 + ["error: nowhere.txt does not exist"]
    sentences += [f"error: {full} is not empty: give another"] * 3
    sentences += ["error: --data_dir nowhere does not exist", "error: --train_file no.csv does not exist"]
    sentences += ["error: --task file needs --train_file"]
    said = done.stderr.splitlines()
    assert said[:-1] == sentences and said[-1].startswith("error: unknown task 'tweet'; did you mean tweets?")


def test_what_does_the_work_takes_what_is_told():
    """Read from the source, since importing all of it takes seconds."""
    doing = [(words, parser, parser.get_default("does")) for words, parser in parsers() if parser.get_default("does")]
    assert len(doing) > 10
    for words, parser, place in doing:
        module, _, name = place.partition(":")
        spec = find_spec(module)
        assert spec is not None, words
        (does,) = (node for node in ast.parse(Path(str(spec.origin)).read_text()).body
                   if isinstance(node, ast.FunctionDef) and node.name == name)  # fmt: skip
        told = {action.dest for action in parser._actions} - {"help", "trust_remote_code"}
        taken = {one.arg for one in (*does.args.args, *does.args.kwonlyargs)}
        assert told == taken or does.args.kwarg and not taken, words


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("tabel", "unknown command 'tabel'; did you mean table?"),
        ("diff shwo x", "unknown verb 'shwo'; did you mean show?"),
        ("masks make a b --criterion randm", "argument --criterion: unknown value 'randm'; did you mean random?"),
        (
            "table show tabel_1",
            "no file 'tabel_1': unknown grid 'tabel_1'; did you mean table_1? See `glue-sparse",
        ),
        ("benchmark --stepz 1", "unknown argument --stepz; did you mean --steps? See `glue-sparse benchmark --help`"),
        ("diff restore a b --stp 1", "unknown argument --stp; did you mean --step? See `glue-sparse diff restore"),
        ("diff show x --nosuch", "unknown argument --nosuch; see `glue-sparse diff show --help`"),
        ("pareto show --nosuch", "unknown argument --nosuch; see `glue-sparse pareto show --help`"),
        ("diff push a b --priv", "unknown argument --priv; did you mean --private?"),
        ("doctor now", "unknown argument now; see `glue-sparse doctor --help`"),
        ("table list extra", "unknown argument extra; see `glue-sparse table list --help`"),
    ],
)
def test_a_word_that_is_none_is_answered_with_the_closest(line: str, sentence: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    said = capsys.readouterr().err
    assert ended.value.code == (1 if "no file" in sentence else 2)
    assert said.startswith(f"error: {sentence}") and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["diff", "show", ""], "argument diff: this is empty"),
        (["diff", ""], "unknown verb ''; there are show,"),
        (["doctor", ""], "unknown argument ''; see"),
    ],
)
def test_an_empty_word_is_told_by_its_place(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and capsys.readouterr().err.startswith(f"error: {sentence}")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("table run {grid} --slurm gpus_per_node=1", "--slurm has no effect without --launcher slurm"),
        ("table show {grid} --output_dir {grid}", "--output_dir {grid} is no folder"),
        ("benchmark --fisher --training", "argument --training: not allowed with argument --fisher"),
        ("benchmark --quick", "--quick has no effect without --block_sparse"),
        ("benchmark --limits --chunk swaps", "--chunk has no effect without --device_check"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    line: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    grid = write(tmp_path)
    with pytest.raises(SystemExit):
        main([word.format(grid=grid) for word in line.split()])
    assert capsys.readouterr().err.startswith(f"error: {sentence.format(grid=grid)}")


def test_the_grid_of_a_front_runs_as_that_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = []
    for command in ("table run {grid}", "pareto run --config {grid}"):
        words = command.format(grid=write(tmp_path)).split()
        assert main([*words, "--dry_run", "--output_dir", str(tmp_path / "runs")]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and said[0].count("glue_sparse.cli.train") == 8


def test_grids_are_listed_with_their_titles(capsys: pytest.CaptureFixture[str]):
    assert main(["table", "list"]) == 0
    said = capsys.readouterr().out
    assert "| table_1 " in said and "| FISH mask, table 1: GLUE dev " in said and said.count("\n| ") > 20
