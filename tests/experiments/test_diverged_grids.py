"""Grids in which a run has diverged: what starts from it is left out, with a reason, and the rest goes on."""

from pathlib import Path
from typing import Any

import pytest

from glue_sparse.cli.table import main
from glue_sparse.experiments import runner
from glue_sparse.experiments.cells import Cell
from glue_sparse.records import folder as run_folder
from glue_sparse.records import results
from glue_sparse.writing import files
from small_grids import diverged, finished, read, write

CHAIN: dict[str, Any] = {
    "rows": {
        "dense": {"method": "dense"},
        "ticket": {"method": "lottery_ticket", "sweep": {"sparsity": [0.2, 0.4]}, "chain": "dense"},
        "random": {"method": "random"},
    },
    "columns": {"rte": {"task": "rte"}},
    "seeds": [0],
}
NAMES = ["dense", "ticket-0.2", "ticket-0.4"]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rows whose runs were started; each gets its result."""
    found: list[str] = []

    def process(self: Any, cell: Cell, slot: int) -> str:
        found.append(cell.row)
        finished(cell)
        return ""

    monkeypatch.setattr(runner.Running, "_process", process)
    return found


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_starts_from_a_run_that_diverged_is_left_out(tmp_path: Path, ran: list[str], at: int, capsys: Any):
    grid = read(tmp_path, **CHAIN)
    chain = [grid.at(name, "rte")[0] for name in NAMES]
    for cell in chain[:at]:
        finished(cell)
    diverged(chain[at])
    grid = read(tmp_path, **CHAIN)
    assert [cell.row for cell in runner.missing(grid)] == ["random"]
    assert "ticket" not in runner.dry_run(grid)
    words = ["run", str(write(tmp_path, **CHAIN)), "--output_dir", str(tmp_path / "runs")]
    assert main([*words, "--results_dir", str(tmp_path / "results")]) == 1
    assert ran == ["random"]
    said = capsys.readouterr().err
    assert f"diverged: {NAMES[at]}/rte/seed0" in said and "failed" not in said
    assert [f"not run: {name}/rte/seed0" in said for name in NAMES] == [place > at for place in range(3)]


def test_a_run_that_started_from_another_and_diverged_is_known_by_its_settings(tmp_path: Path):
    """Among the settings it stored is the content of what it started from, which a grid is not told."""
    grid = read(tmp_path, **CHAIN)
    finished(grid.at("dense", "rte")[0])
    (cell,) = grid.at("ticket-0.2", "rte")
    stored = results.settings({**cell.arguments.given, results.START: "abc"})
    diverged(cell)
    files.write_text(cell.folder / run_folder.ARGUMENTS_FILE, files.json_text(stored, "settings"))
    assert cell.has_diverged
    files.write_text(cell.folder / run_folder.ARGUMENTS_FILE, files.json_text({**stored, "seed": 5}, "settings"))
    with pytest.raises(ValueError, match="`seed` 5"):
        assert cell.has_diverged
