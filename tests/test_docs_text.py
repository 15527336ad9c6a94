"""What the text of the documentation names exists: flags and their values, commands, verbs, names, files."""

import re
import runpy
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import glue_sparse
from documented import PAGES, ROOT, check_command
from glue_sparse.experiments.told import command_line

LAUNCHERS = {"--config_file", "--help", "--machine_rank", "--nproc_per_node", "--strict"}
"""Flags of other programs that the text names."""


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_flags_in_the_text_exist():
    helps = "\n".join(text for _, text in runpy.run_path(str(ROOT / "docs/hooks.py"))["helps"]())
    known = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", helps)) | LAUNCHERS
    unknown = []
    for page in PAGES:
        flags = {flag for code in codes(page) for flag in re.findall(r"(?<!\S)--[a-z]\w*", code)}
        own = {f"--{name}" for name in re.findall(r"^ +(\w+): .* = arg\(", page.read_text(), flags=re.MULTILINE)}
        unknown += [f"{where(page)}: {flag}" for flag in sorted(flags - known - own)]
    assert not unknown


def test_commands_in_the_text_parse(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """They may leave arguments out, but what they say exists, verbs included."""
    wrong, seen = [], set()
    for page in PAGES:
        for code in codes(page):
            if code.startswith("glue-sparse ") and not any(f" {name}" in code for name in registered(page)):
                if code in seen:
                    continue
                seen.add(code)
                try:
                    check_command(code.replace("\\|", "|"), tmp_path)
                except (SystemExit, ValueError) as error:
                    told = f"{error} {capsys.readouterr().err.strip()}"
                    wrong += [] if "required" in told or "needs" in told else [f"{where(page)}: {code}: {told}"]
            for file in re.findall(r"\b(?:scripts/\w+\.\w+|run_\w+\.sh)", code):
                wrong += [] if (ROOT / file).is_file() else [f"{where(page)}: {file}"]
    assert not wrong, "\n".join(wrong)


def test_values_of_flags_in_the_text_are_taken():
    parser, wrong = command_line().parser(), []
    for page in PAGES:
        for code in codes(page):
            for flag, value in re.findall(r"(?<!\S)(--[a-z]\w*)((?: (?!-)[^\s|]+)+)", code if code[0] == "-" else ""):
                try:
                    parser.parse_known_args([flag, *value.split()])
                except ValueError as error:
                    wrong.append(f"{where(page)}: {code}: {error}")
    assert not wrong, "\n".join(wrong)


def test_names_in_the_text_exist():
    """`Public.name`, `glue_sparse.part.name`, and paths of the checkout."""
    wrong = []
    for page in PAGES:
        for code in codes(page):
            for first, rest in re.findall(r"\b([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*)+)", code):
                owner = getattr(glue_sparse, first, glue_sparse)
                is_ours = first in ("glue_sparse", *glue_sparse.__all__) and "NAME" not in rest
                if is_ours and not has(owner, rest.split(".")[1:]):
                    wrong.append(f"{where(page)}: {code}")
            for file in re.findall(r"^(?:src|docs|scripts|configs|examples|tests)/[\w./-]+$", code):
                wrong += [] if (ROOT / file).exists() or "NAME" in file else [f"{where(page)}: {file}"]
    assert not wrong, "\n".join(wrong)


def has(owner: Any, names: list[str]) -> bool:
    for name in names:
        if not hasattr(owner, name) and isinstance(owner, ModuleType) and find_spec(f"{owner.__name__}.{name}"):
            import_module(f"{owner.__name__}.{name}")
        if not hasattr(owner, name) and name not in getattr(owner, "__dataclass_fields__", {}):
            return False
        owner = getattr(owner, name, None)
    return True


def codes(page: Path) -> list[str]:
    """What stands in backticks in the text of a page; there a capital alone is any number."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    found = [re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", text)]
    return [re.sub(r"(?<= )[A-Z](?= |$)", "1", code) for code in found]


def registered(page: Path) -> list[str]:
    """Methods that a page brings itself."""
    return re.findall(r"\bMethod\(\"(\w+)\"", page.read_text())
