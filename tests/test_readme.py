"""The README's program runs as it stands and prints what stands below it; its tables are of what there is."""

import re
import struct
from pathlib import Path

import pytest
import torch

from glue_sparse import SparseDiff, attach
from glue_sparse.cli.main import COMMANDS
from glue_sparse.core import gaps
from glue_sparse.core.params import head_names
from glue_sparse.experiments import grids
from glue_sparse.methods.registry import METHODS
from networks import bert

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
(PROGRAM,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
PRINTED = re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)[0]
COUNTED = r"all params: ([\d,]+).*file: (\d+) bytes"
"""What does not depend on the machine: weights, and bytes of the file."""


def shape(printed: str) -> list[str]:
    """Lines without their numbers."""
    return [re.sub(r"\d[\d,.]*(e-\d+)?", "#", line).strip() for line in printed.splitlines() if line.strip()]


def run(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(program, {})
    assert (folder / "tweets_diff" / "sparse_diff.safetensors").is_file()
    return capsys.readouterr().out


@pytest.mark.slow
def test_the_program_prints_what_stands_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    small, changed = re.subn(r"samples=\d{3}\b", "samples=8", PROGRAM)
    assert changed == 3 and len(PROGRAM.splitlines()) <= 20
    printed = run(small, tmp_path, monkeypatch, capsys)
    assert shape(printed) == shape(PRINTED)
    assert printed.splitlines()[0] == PRINTED.splitlines()[0]
    assert printed.rstrip().endswith("bit for bit: True") and PRINTED.rstrip().endswith("bit for bit: True")


@pytest.mark.slow
def test_the_program_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    printed = run(PROGRAM, tmp_path, monkeypatch, capsys)
    assert shape(printed) == shape(PRINTED)
    counts = [re.findall(COUNTED, text, flags=re.DOTALL) for text in (printed, PRINTED)]
    assert counts[0] == counts[1] and len(counts[0]) == 1
    accuracies = [float(re.findall(r"accuracy: ([\d.]+)", text)[0]) for text in (printed, PRINTED)]
    assert abs(accuracies[0] - accuracies[1]) < 0.05  # rounding differs between machines


def table(below: str) -> list[list[str]]:
    """Cells of the first table below a line, without its header."""
    rows = README.partition(below)[2].partition("|")
    lines = [line for line in ("|" + rows[2]).split("\n\n")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def short(number: float) -> str:
    """Bytes with three digits."""
    unit, size = ("GB", 1e9) if number >= 1e9 else ("MB", 1e6)
    digits = f"{number / size:.3g}"
    return f"{digits if '.' in digits or number / size >= 100 else f'{number / size:#.3g}'} {unit}"


BYTES_OF_A_GAP = (7 + 1 + 0.995**128 / (1 - 0.995**128)) / 8
"""Seven low bits, a one, and the mean number of zeros before it, where 0.5 % of all entries are active at random."""


def test_sizes_are_those_of_the_format(tmp_path: Path):
    model = bert()
    head = head_names(model)
    masks = {name: torch.rand(p.shape) < 0.1 for name, p in model.named_parameters() if name not in head}
    attach(model, masks)
    diff = SparseDiff.from_model(model)
    path = diff.save_pretrained(tmp_path)
    with path.open("rb") as file:
        header = struct.unpack("<Q", file.read(8))[0]
    whole = sum(tensor.numel() for tensor in diff.whole.values())
    code = sum(len(gaps.encode(positions.numpy())[0]) for positions in diff.indices.values())
    values = sum(
        value.nbytes // (2 if torch.equal(value.bfloat16().float(), value) else 1) for value in diff.values.values()
    )
    assert path.stat().st_size - 8 - header == values + code + 4 * whole + 32 * len(diff.indices)
    numbers = {"22.6 M": 22_566_146, "109 M": 109_483_778, "1 B": 10**9, "8 B": 8 * 10**9}
    found = table("## Sizes")
    assert [row[0].partition(" (")[0] for row in found] == [*numbers]
    for row, weights in zip(found, numbers.values(), strict=True):
        active = int(0.005 * weights)
        sizes = ((4 + BYTES_OF_A_GAP) * active, 4 * weights, 8 * active, 8 * weights)
        assert row[1:] == [short(one) for one in sizes], row[0]


def test_its_tables_name_what_there_is():
    commands = {words for row in table("## Commands") for words in re.findall(r"^`glue-sparse ([\w-]+)`", row[0])}
    assert commands >= COMMANDS.keys()
    named = {word for row in table("## I want to") for word in re.findall(r"`([a-z_]+)`", row[1])}
    assert named <= METHODS.keys() and len(named) > 10


def test_the_quickstart_stands_as_it_was_measured():
    grid = grids.read(Path("quickstart"))
    rows = table("what to make of it):")
    assert [row[0] for row in rows] == [*grid.rows] == [*grid.notes]
    assert [row[-1] for row in rows] == [*grid.notes.values()]
    measured = (ROOT / "docs" / "results" / "quickstart.md").read_text()
    lines = [line for line in README.splitlines() if line.startswith("|") and line.split("|")[1].strip() in grid.rows]
    assert len(lines) == len(rows) and all(line in measured for line in lines)


def test_it_is_short_and_names_both_commands():
    assert len(README.splitlines()) < 150
    assert "bash run_quickstart.sh" in README and "bash run_tests.sh" in README
