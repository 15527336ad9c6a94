"""Losses in tables, figures and choices: smaller is better, and they are no percent."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glue_sparse.experiments import grids, runner
from glue_sparse.experiments.cells import Cell, Grid
from glue_sparse.records import results
from glue_sparse.records.scales import LOSS, PERCENT, is_loss, scale_of, scales_of
from glue_sparse.reports import curves, tables, trials
from glue_sparse.reports.figures import grids as figures
from glue_sparse.reports.sheet import Sheet
from small_grids import diverged, finished, read


def lost(cell: Cell, loss: float) -> None:
    """A finished run that is scored by a loss."""
    scored = replace(finished(cell), main_metric="mlm_loss", metrics={"validation": {"mlm_loss": loss}})
    results.write(scored, cell.folder)


def fill(grid: Grid, losses: dict[str, tuple[float, ...]], column: str = "rte") -> None:
    for row, found in losses.items():
        for cell, loss in zip(grid.at(row, column), found, strict=True):
            lost(cell, loss)


def test_losses_are_known_by_their_names():
    assert is_loss("mlm_loss") and is_loss("loss") and not is_loss("accuracy") and not is_loss("loss_share")
    assert scale_of("nsp_loss") is LOSS and scale_of("f1") is PERCENT and scales_of([]) == [PERCENT]
    assert LOSS.worth(2.0) > LOSS.worth(3.0) > LOSS.worth(float("nan")) and PERCENT.worth(0.3) > PERCENT.worth(0.2)


def test_tables_show_losses_as_they_are(tmp_path: Path):
    grid = read(tmp_path, columns={"rte": {"task": "rte"}, "cola": {"task": "cola"}})
    for column in grid.columns:
        fill(grid, {"random": (5.0, 5.25), "long": (4.0, 4.0)}, column)
    header, lines = tables.table(Sheet.of(grid))
    assert header[2:] == ["RTE mlm_loss", "COLA mlm_loss", "mean"]
    assert lines[0][2:] == ["5.125 ± 0.177 (2)", "5.125 ± 0.177 (2)", "5.125"]
    assert lines[1][2] == "4.000 ± 0.000 (2)"
    text = tables.as_markdown(Sheet.of(grid))
    assert "in nats, smaller is better" in text and "percent" not in text
    assert "random,rte,RTE,mlm_loss,5.125," in tables.as_csv(Sheet.of(grid))
    (first, *_) = [result for cell in grid.cells if (result := cell.result())]
    first = replace(first, cost={**first.cost, "stored_bytes": 0}, seconds={"choose": 0, "train": 1})
    assert tables.rows([first])[0][3:5] == ("5.000", "mlm_loss")


def test_no_mean_is_of_percents_and_losses(tmp_path: Path):
    grid = read(tmp_path)
    fill(grid, {"random": (5.0, 5.0), "long": (4.0, 4.0)})
    for row in grid.rows:
        for cell in grid.at(row, "cola"):
            finished(cell, 0.5)
    header, lines = tables.table(Sheet.of(grid))
    assert header[2:] == ["RTE mlm_loss", "COLA accuracy"] and lines[0][2:] == ["5.000 ± 0.000 (2)", "50.00 ± 0.00 (2)"]
    assert figures._score_label(Sheet.of(grid)) == "mlm_loss / accuracy, %"


def test_published_losses_stand_below_ours(tmp_path: Path):
    rows: Any = {"dynamic-16": {"method": "random"}, "dense": {"method": "dense"}}
    grid = read(tmp_path, rows=rows, columns={"base": {"task": "rte"}}, published=["dynsparse"])
    fill(grid, {"dynamic-16": (3.0, 3.2), "dense": (2.5, 2.5)}, "base")
    _, lines = tables.table(Sheet.of(grid))
    assert [line[2] for line in lines] == ["3.100 ± 0.141 (2)", "2.311", "2.500 ± 0.000 (2)", "1.843"]
    assert "arXiv 2108.06277" in tables.as_markdown(Sheet.of(grid))


def test_the_smallest_loss_is_chosen(tmp_path: Path):
    changes: Any = {
        "rows": {"dense": {"method": "dense"}}, "base": {"model": "resnet9"}, "columns": {"rte": {"task": "cifar10"}},
        "tune": {"learning_rate": [0.4, 0.2, 0.08], "hold_out": 10},
    }  # fmt: skip
    grid = read(tmp_path, **changes)
    assert grid.tuned
    for cell, loss in zip(grid.tuned.trials.cells, (3.05, 3.1, None), strict=True):
        lost(cell, loss) if loss else diverged(cell)
    grid = read(tmp_path, **changes)
    assert {cell.arguments.training.learning_rate for cell in grid.cells} == {0.08}
    assert trials.table(grid)[1] == [["dense", "rte", "diverged", "3.100", "**3.050**"]]
    text = tables.as_markdown(Sheet.of(grid))
    assert "Trials on held-out data, nats, smaller is better; the chosen one is bold:" in text


def test_an_axis_of_losses_has_no_percent_sign(tmp_path: Path):
    grid = read(tmp_path, figure={"panels": [{"x": "num_train_epochs"}]}, columns={"rte": {"task": "rte"}})
    fill(grid, {"random": (5.0, 5.2), "long": (4.0, 4.0)})
    assert figures._score_label(Sheet.of(grid)) == "RTE mlm_loss"
    (points,) = figures.lines(Sheet.of(grid), {"x": "num_train_epochs"}).values()
    assert [place.mean for _, place in points] == [pytest.approx(5.1), 4.0]
    assert all(path.stat().st_size for path in figures.draw(Sheet.of(grid), tmp_path))


def test_a_drop_point_is_of_percents_only(tmp_path: Path):
    rows: Any = {
        "dense": {"method": "one_shot", "sparsity": 0.0},
        "cut": {"method": "one_shot", "sweep": {"sparsity": [0.5]}},
    }
    grid: grids.Grid = read(tmp_path, rows=rows, columns={"rte": {"task": "rte"}})
    fill(grid, {"dense": (3.0, 3.0), "cut-0.5": (3.5, 3.5)})
    with pytest.raises(ValueError, match="a drop point is of scores in percent, and RTE is scored by mlm_loss"):
        curves.lines(Sheet.of(grid))


def test_a_run_that_is_done_says_its_loss(tmp_path: Path):
    class Bar:
        said = ""

        def update(self) -> None:
            """As tqdm's."""

        def write(self, text: str, file: Any) -> None:
            self.said = text

    grid, bar = read(tmp_path), Bar()
    lost(grid.cells[0], 5.1234)
    runner._report(bar, grid.cells[0], runner.Attempt(grid.cells[0].result(), 2.0, ""))  # type: ignore[arg-type]
    assert bar.said.endswith("mlm_loss 5.123, 2 s")
