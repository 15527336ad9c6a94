"""What is read without torch: results, tables, figures, flags; and how often."""

import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from glue_sparse import SparseDiff
from glue_sparse.arguments.groups import GLUE as GLUE_NAMES
from glue_sparse.arguments.trainer_flags import trainer_flags
from glue_sparse.arguments.training import RunArguments
from glue_sparse.cli import table
from glue_sparse.diffs import diff_file
from glue_sparse.diffs.identity import FILE_NAME, identity
from glue_sparse.experiments import grids
from glue_sparse.experiments.told import command_line
from glue_sparse.methods.gates import gate_file
from glue_sparse.methods.moving import pattern_file
from glue_sparse.methods.registry import METHODS
from glue_sparse.models import bert_family, names, vision
from glue_sparse.records import results
from glue_sparse.tasks.glue import GLUE
from hiding import hide
from small_grids import finished

ROOT = Path(__file__).parents[2]
LIGHT = """
import sys
from time import process_time
started = process_time()
import glue_sparse
assert process_time() - started < 0.3, process_time() - started
import glue_sparse.reports.curves, glue_sparse.reports.pareto, glue_sparse.reports.rate_sweeps
import glue_sparse.records.archive, glue_sparse.reports.zero_shot, glue_sparse.reports.where
import glue_sparse.reports.figures.drop_points, glue_sparse.reports.figures.pareto
import glue_sparse.reports.figures.runs, glue_sparse.reports.figures.patterns, glue_sparse.reports.figures.masks
from glue_sparse.cli import figure, table
grid, runs, out = sys.argv[1:]
assert table.main(["show", grid, "--output_dir", runs, "--results_dir", out]) == 0
assert table.main(["show", runs]) == 0 and "scipy" not in sys.modules
assert table.main(["show", grid, "--output_dir", runs, "--results_dir", out,
                   "--interval", "95", "--against", "dense"]) == 0
figure.main([grid, "--output_dir", runs, "--results_dir", out])
from glue_sparse.cli import claims
assert claims.main(["--runs", runs]) == 0
print([name for name in ("torch", "transformers") if name in sys.modules])
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A grid with a figure, all of whose runs are there."""
    text = """
        title: small
        base: {model: minilm}
        rows: {fish: {method: fish, sweep: {density: [0.005, 0.01]}}, dense: {method: dense}}
        columns: {rte: {task: rte}, cola: {task: cola}}
        seeds: [0, 1]
        figure: {panels: [{x: density, where: {method: fish}, level: dense}]}
    """
    (tmp_path / "small.yaml").write_text("\n".join(line[8:] for line in text.splitlines()))
    for cell in grids.read(tmp_path / "small.yaml", output_dir=tmp_path / "runs").cells:
        finished(cell, 0.5 + 0.1 * cell.seed, seconds={"train": 1.0, "choose": 0.0},
                 cost={"trainable": 5, "num_entries": 1000, "stored_bytes": 7})  # fmt: skip
    return tmp_path


def test_tables_and_figures_load_neither_torch_nor_transformers(small: Path):
    paths = [str(small / name) for name in ("small.yaml", "runs", "results")]
    done = subprocess.run([sys.executable, "-c", LIGHT, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]" and "| fish-0.005 |" in done.stdout
    assert {path.name for path in (small / "results").iterdir()} >= {"small.md", "small.csv", "small.tex", "small.png"}


def test_a_table_is_shown_where_its_figure_cannot_be_drawn(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    hide("matplotlib", monkeypatch)
    grid, runs, out = (str(small / name) for name in ("small.yaml", "runs", "results"))
    assert table.main(["show", grid, "--output_dir", runs, "--results_dir", out]) == 0
    shown, said = capsys.readouterr()
    assert "| fish-0.005 |" in shown and {path.suffix for path in Path(out).iterdir()} == {".md", ".csv", ".tex"}
    assert said == 'no figure: a figure needs a package that is not installed: pip install "glue_sparse[plots]"\n'


def test_show_opens_each_result_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All 144 of table 1, in its table in three formats, with captions, costs and means."""
    more = {"output_dir": tmp_path / "runs", "flags": ["--model", "minilm"]}
    grid = grids.read(Path("table_1"), **more)
    cells = [cell for cell in grid.cells if cell.row in grid.rows]
    for cell in cells:
        finished(cell, flops={"forward_flops": 1.0, "forward_share": 1.0, "training_flops_per_example": 3.0,
                              "training_flops": 30.0, "training_share": 1.0})  # fmt: skip
    opened: list[Path] = []
    read = results.read
    monkeypatch.setattr(results, "read", lambda path: opened.append(path) or read(path))
    words = ["show", "table_1", "--model", "minilm"]
    where = ["--output_dir", str(tmp_path / "runs"), "--results_dir", str(tmp_path / "results")]
    assert table.main([*words, *where]) == 0
    assert len(cells) == 144 and sorted(opened) == sorted(cell.folder / results.FILE_NAME for cell in cells)


def test_flags_of_the_trainer_are_those_of_the_class():
    flags = {flag.name: flag for flag in trainer_flags("")}
    known: dict[str, Any] = {one.name: one for one in fields(TrainingArguments) if one.init}
    assert flags.keys() == known.keys()
    for name, one in known.items():
        default = one.default if one.default is not MISSING else one.default_factory()
        assert flags[name].default == default and type(flags[name].default) is type(default), name
    assert {one.name for one in fields(RunArguments) if one.init} <= command_line().flags.keys()


def test_a_digest_is_the_same_with_and_without_torch(tmp_path: Path):
    import torch

    from glue_sparse import attach
    from networks import bert

    model = bert()
    attach(model, {n: torch.rand(p.shape) < 0.1 for n, p in model.bert.named_parameters(prefix="bert")})
    diff = SparseDiff.from_model(model)
    path = diff.save_pretrained(tmp_path)
    found, info = identity(path)
    assert found == diff.digest() == diff_file.digest(diff.parts) and info == diff.info
    for damage in (path.read_bytes()[:100], path.read_bytes()[:-100], b"", b"\xff" * 64):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / FILE_NAME).write_bytes(damage)
        with pytest.raises(ValueError, match="damaged|is not a"):
            identity(tmp_path / "bad" / FILE_NAME)


def test_names_that_are_known_without_torch_are_those_of_the_code():
    assert (*bert_family.SIZES,) == names.BERTS and (*vision._NETWORKS,) == names.RESNETS
    assert (*GLUE,) == GLUE_NAMES
    assert METHODS["rigl"].leaves == (pattern_file.PATTERNS,) and METHODS["diff_gates"].leaves == (gate_file.FILE_NAME,)
