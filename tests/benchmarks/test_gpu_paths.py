"""The page on checking a device lists every file of the package that asks for a GPU, and real chunks."""

import re
from pathlib import Path

from glue_sparse.benchmarks.device.chunks import chunks

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "glue_sparse"
PAGE = (ROOT / "docs/device_check.md").read_text()
ASKS = re.compile(r"cuda|nccl|device\.type|device_type|synchronize", re.IGNORECASE)
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## What is different on a GPU")[2].splitlines()
    if line.startswith("| `")
]


def listed() -> list[str]:
    return [name for row in ROWS for name in re.findall(r"`([\w/.]+)`", row[0])]


def asking() -> set[str]:
    files = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
    return {name for name, text in files.items() if ASKS.search(text)}


def test_files_that_ask_for_a_gpu_are_listed_and_no_others():
    names = listed()
    covered = {file for file in asking() for name in names if file == name or name[-1] == "/" and file.startswith(name)}
    assert asking() - covered == set(), "put them into the last table of docs/device_check.md"
    assert [name for name in names if not any(file.startswith(name) for file in asking())] == []


def test_chunks_in_the_table_exist():
    known = {*chunks(quick=True), *chunks(quick=False)}
    named = [re.findall(r"`(\w+)`", row[2]) for row in ROWS]
    assert {name for names in named for name in names} <= known
    assert all(names or row[2][:1] == "-" or row[2] == "all" for names, row in zip(named, ROWS, strict=True))
