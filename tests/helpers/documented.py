"""What README, docs, examples and docstrings show: pages, their blocks, and the commands in them, parsed for real."""

import ast
import os
import re
import runpy
import shlex
import subprocess
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.cli import main as command
from glue_sparse.cli.grid_flags import read_grid
from glue_sparse.experiments.grid_file import SHIPPED
from glue_sparse.experiments.told import parse

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = [*sorted((ROOT / "examples").rglob("*.py")), *sorted((ROOT / "src/glue_sparse/cli").glob("*.py"))]
"""Whose docstrings show commands."""
OURS = ("glue-sparse", "python", "bash", "torchrun", "accelerate")
OTHERS = {
    "cat", "cd", "echo", "eval", "export", "git", "ls", "mkdocs", "pip", "pyright", "pytest", "ruff", "sbatch",
    "source",
}  # fmt: skip
"""Commands of other programs that a page may show as they are."""
FAKE = """#!/bin/bash
printf '%q ' "$(basename "$0")" "$@" >>"$SHOWN"
echo >>"$SHOWN"
"""


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of these languages, those inside lists too."""
    found = re.findall(r"^( *)```(\w+)[^\n]*\n(.*?)^ *```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, name, text in found if name in languages]


def documented() -> Iterator[tuple[Path, str]]:
    """(where it stands, a command), each once."""
    for page in PAGES:
        lines = [line for text in blocks(page, "bash", "sh", "shell") for line in _joined(text)]
        lines += [line[2:] for text in blocks(page, "console") for line in _joined(text) if line.startswith("$ ")]
        for line in dict.fromkeys(lines):
            yield page, line
    for program in PROGRAMS:
        text = ast.get_docstring(ast.parse(program.read_text())) or ""
        for line in _joined(text):
            if line.startswith("    ") and line.split()[:1] and line.split()[0] in OURS:
                yield program, line


def _joined(text: str) -> list[str]:
    """Lines as a shell reads them, without comments and what goes into a file (`cat >it <<EOF`)."""
    text = re.sub(r"(<<\W*(\w+).*?\n).*?^\2$", r"\1", text, flags=re.DOTALL | re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def check_command(line: str, folder: Path) -> None:
    """Parse a shown command by the parser that it would meet; `...` stands for more flags.

    Args:
        folder: empty, for a shell script to run in with programs that only write down how they were called.
    Raises:
        ValueError, SystemExit: it would not run as it is shown.
    """
    words = [one for word in shlex.split(line, comments=True) for one in _expanded(word)]
    for operator in ("&&", "|", "||", ";"):
        if operator in words:
            at = words.index(operator)
            check_command(shlex.join(words[:at]), folder)
            return check_command(shlex.join(words[at + 1 :]), folder)
    for redirection in (">", ">>"):
        if redirection in words:
            at = words.index(redirection)
            del words[at : at + 2]
    while words and re.match(r"[A-Z_0-9]+=", words[0]):
        words = words[1:]
    if not words:
        return None
    program, *rest = words
    if program == "bash":
        for called in _called(rest, folder):
            check_command(called, folder)
    elif program == "glue-sparse":
        _check_ours(rest)
    elif program == "srun":  # starts what follows it on every node
        check_command(shlex.join(rest), folder)
    elif program in ("torchrun", "accelerate"):
        _check_launched(program, rest)
    elif program in ("python", "python3"):
        _check_python(rest)
    elif program not in OTHERS:
        raise ValueError(f"no test knows the program {program!r}")
    elif program == "pip":
        _check_extras(line)
    return None


def _expanded(word: str) -> list[str]:
    """A word as bash reads its `{a,b}`."""
    braces = re.fullmatch(r"([^{} ]*)\{([^{} ]+,[^{} ]+)\}([^{} ]*)", word)
    return [braces[1] + one + braces[3] for one in braces[2].split(",")] if braces else [word]


def _check_python(words: list[str]) -> None:
    if words[0] == "-c":
        compile(words[1], "shown", "exec")
    elif words[0] == "-m":
        _check_module(words[1], words[2:])
    else:
        _check_script(words[0], words[1:])


def _check_launched(program: str, words: list[str]) -> None:
    if program == "torchrun":
        from torch.distributed.run import get_args_parser as launcher
    else:
        from accelerate.commands.launch import launch_command_parser as launcher

        assert words.pop(0) == "launch"
    told = launcher().parse_args(words)
    check = _check_module if told.module else _check_script
    check(told.training_script, told.training_script_args)


def _check_module(name: str, words: list[str]) -> None:
    if name == "glue_sparse":
        _check_ours(words)
    elif name.startswith("glue_sparse.cli."):
        _check_part(name.rpartition(".")[2], words)
    elif not find_spec(name):
        raise ValueError(f"there is no module {name}")


def _check_script(path: str, words: list[str]) -> None:
    if not (ROOT / path).is_file():
        raise ValueError(f"there is no {path}")
    if (ROOT / "src/glue_sparse/cli" / Path(path).name).is_file():
        _check_part(Path(path).stem, words)
    elif path.startswith("scripts/"):
        with patch("sys.argv", [path, *words]):
            _parsed(lambda _: runpy.run_path(str(ROOT / path), run_name="__main__"), words)


def _check_ours(words: list[str]) -> None:
    if words[:1] == ["train"]:
        _check_part("train", words[1:])
    else:
        _parsed(command.main, words)


def _check_part(module: str, words: list[str]) -> None:
    told = [word for word in words if word != "..."]
    if module != "train" or "--help" in told:
        _parsed(lambda words: command.call(module, words), words)
    elif told:
        parse(told, config=DEFAULTS)


class _Parsed(Exception):
    """Ends a command as soon as its words are understood."""


def _parsed(run: Any, words: list[str]) -> None:
    """Call a command until its outermost parser has read all words; of a grid, read it with the flags left over."""
    depth, real = [0], {name: getattr(ArgumentParser, name) for name in ("parse_args", "parse_known_args")}

    def stopping(name: str) -> Any:
        def parse(self: ArgumentParser, *args: Any, **options: Any) -> Any:
            depth[0] += 1
            try:
                found = real[name](self, *args, **options)
            finally:
                depth[0] -= 1
            if depth[0]:
                return found
            raise _Parsed(*(found if isinstance(found, tuple) else (found, [])))

        return parse

    try:
        with patch.multiple(ArgumentParser, **{name: stopping(name) for name in real}):
            run(words)
    except _Parsed as parsed:
        told, left = parsed.args
        _check_grid(told, left)
    except SystemExit as end:  # of --help
        if end.code:
            raise


def _check_grid(told: Namespace, left: list[str]) -> None:
    """What is left over goes to all runs: to those of a grid, here of one seed, since all have the same flags."""
    config = getattr(told, "config", None)
    first = config[0] if isinstance(config, list) else config
    if first and (SHIPPED / f"{first}.yaml").is_file():
        told.seeds = told.seeds[:1] or [0]
        read_grid(first, told, left)
    elif left:
        parse(["--task", "tweets", "--model", "minilm", *left], config=DEFAULTS)


def _called(words: list[str], folder: Path) -> list[str]:
    """The commands of ours that a shell script would call, in a place where nothing else happens."""
    script = words[0]
    if not (ROOT / script).is_file():
        raise ValueError(f"there is no {script}")
    for name in ("python", "python3", "glue-sparse", "torchrun", "accelerate"):
        (folder / name).write_text(FAKE)
        (folder / name).chmod(0o755)
    shown = folder / "shown"
    shown.write_text("")
    variables = {"PATH": f"{folder}:{os.environ['PATH']}", "VIRTUAL_ENV": str(folder), "SHOWN": str(shown)}
    subprocess.run(["bash", ROOT / script, *words[1:]], env=os.environ | variables, check=True, cwd=folder,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    calls = [line for line in shown.read_text().splitlines() if not line.startswith("python -m pip ")]
    if not calls:
        raise ValueError(f"{script} calls nothing")
    return calls


def _check_extras(line: str) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for names in re.findall(r"(?:glue_sparse|glue-sparse|\.)\[([\w,-]+)\]", line):
        for name in names.split(","):
            if name not in known:
                raise ValueError(f"there is no extra {name!r}")
