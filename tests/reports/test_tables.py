"""Tables and figures from result files, worked by hand."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glue_sparse.experiments.grids import Grid
from glue_sparse.records import published
from glue_sparse.reports import cost_tables, tables
from glue_sparse.reports.figures import grids as figures
from glue_sparse.reports.sheet import Sheet
from glue_sparse.writing.tables import markdown
from small_grids import finished, read

FIGURE: dict[str, Any] = {"panels": [{"x": "num_train_epochs", "label": "epochs", "line": "method"}]}


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """Complete for random, one seed missing for long/rte, nothing for long/cola."""
    small = read(tmp_path, figure=FIGURE)
    for row, column, scores in (("random", "rte", (0.5, 0.7)), ("random", "cola", (0.2, 0.2)), ("long", "rte", (0.9,))):
        for cell, score in zip(small.at(row, column), scores, strict=False):
            finished(cell, score)
    return small


def test_means_spreads_and_missing_seeds_are_said(grid: Grid):
    header, lines = tables.table(Sheet.of(grid))
    assert header == ["", "weights trained", "RTE accuracy", "COLA accuracy", "mean"]
    assert lines[0] == ["random", "0.500%", "60.00 ± 14.14 (2)", "20.00 ± 0.00 (2)", "40.00"]
    assert lines[1] == ["long", "0.500%", "90.00 (1 of 2)", "-", "-"]


def test_subsets_keep_their_names(tmp_path: Path):
    small = read(tmp_path, rows={"random": {"method": "random"}}, columns={"rte": {"task": "rte"}}, seeds=[0])
    finished(small.cells[0], 0.5)
    path = small.cells[0].folder / "results.json"
    path.write_text(path.read_text().replace('"RTE"', '"RTE (subset)"'))
    assert tables.table(Sheet.of(small))[0] == ["", "weights trained", "RTE (subset) accuracy"]


def test_csv_and_latex_say_the_same(grid: Grid, tmp_path: Path):
    lines = list(csv.DictReader(io.StringIO(tables.as_csv(Sheet.of(grid)))))
    assert {(x["row"], x["column"]): (x["seeds"], x["seeds_wanted"]) for x in lines} == {
        ("random", "rte"): ("2", "2"),
        ("random", "cola"): ("2", "2"),
        ("long", "rte"): ("1", "2"),
        ("long", "cola"): ("0", "2"),
    }
    latex = tables.as_latex(Sheet.of(grid))
    assert r"random & 0.500\% & 60.00 $\pm$ 14.14 (2) & 20.00 $\pm$ 0.00 (2) & 40.00 \\" in latex
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 1
    written = tables.write(Sheet.of(grid), tmp_path / "results")
    assert [path.name for path in written] == ["small.md", "small.csv", "small.tex"]


def test_published_numbers_stand_below_ours_with_their_source(tmp_path: Path):
    merge = {"merge_every": 10, "num_workers": 2}
    rows = {
        "fish-merge10": {"method": "fish", **merge},
        "mine": {"method": "random"},
        "fish-merge30": {"method": "fish", **merge, "merge_rule": "mean"},  # theirs is of `sum`
    }
    small = read(tmp_path, rows=rows, columns={"mrpc": {"task": "mrpc"}}, published=["fish_distributed_logs"])
    header, lines = tables.table(Sheet.of(small))
    names = ["fish-merge10", "fish-merge10, authors' logs, seed 0", "mine", "fish-merge30"]
    assert [line[0] for line in lines] == names
    assert lines[1][2] == "88.88"
    text = tables.as_markdown(Sheet.of(small))
    assert "glue_asgd_logs.zip" in text and "not" not in lines[1][0]


def test_every_published_file_reads():
    folder = Path(published.__file__).parent
    for path in folder.glob("*.yaml"):
        source = published.read(path.stem)
        assert source.name and source.source and source.values
    assert published.read("fish_distributed_logs").value("fish-merge30", "mrpc") == 89.99
    assert published.read("fish_distributed_logs").value("random-merge30", "mnli") is None


def test_bytes_sent_stand_beside_the_dense_run(tmp_path: Path):
    small = read(tmp_path, columns={"rte": {"task": "rte"}}, seeds=[0])
    sent = {"num_workers": 2, "num_merges": 4, "sent_per_worker": 2_000_000, "dense_sent_per_worker": 80_000_000}
    sent["changed_entries"] = 30
    finished(small.cells[0], 0.5, communication=sent)
    _, lines = cost_tables.communication(Sheet.of(small))
    assert lines == [["random", "RTE", "4", "0.50 MB", "2.00 MB", "80.00 MB", "2.50%"]]
    assert tables.table(Sheet.of(small))[1][0][1] == "3.000%"
    assert "Bytes sent by each worker" in tables.as_markdown(Sheet.of(small))


def test_bytes_per_checkpoint_stand_beside_a_dense_one(tmp_path: Path):
    small = read(tmp_path, columns={"rte": {"task": "rte"}}, seeds=[0])
    finished(small.cells[1])
    assert cost_tables.checkpoints(Sheet.of(small))[1] == []
    written = {"count": 3, "bytes_total": 6_000_000, "bytes_mean": 2_000_000.0, "dense_bytes": 80_000_000,
               "changed_entries_total": 250}  # fmt: skip
    finished(small.cells[0], 0.5, checkpoints=written)
    (line,) = cost_tables.checkpoints(Sheet.of(small))[1]
    assert line == ["random", "RTE", "3", "2.00 MB", "80.00 MB", "2.50%", "25.00%"]
    assert "Bytes per checkpoint" in tables.as_markdown(Sheet.of(small))


def test_a_title_with_line_breaks_and_half_characters_breaks_no_table(tmp_path: Path):
    grid = read(tmp_path, title="a\nb")
    found = [replace(finished(cell), title="R\nT|E\ud800") for cell in grid.cells]
    row = markdown(tables.HEADER, tables.rows(found[:1]))
    sheet = Sheet(grid, {(cell.row, cell.column, cell.seed): one for cell, one in zip(grid.cells, found, strict=True)})
    assert len(row.splitlines()) == 3 and r"| R\nT\|E\ud800 |" in row
    assert tables.as_markdown(sheet).startswith("## a\\nb\n\n|")
    assert "% a\\nb\n" in tables.as_latex(sheet) and "R\\nT|E" in tables.as_latex(sheet)
    assert all(path.read_text("utf-8") for path in tables.write(sheet, tmp_path))


def test_columns_with_the_same_data_keep_their_names_apart(tmp_path: Path):
    columns = {"short": {"task": "rte", "max_length": 64}, "long": {"task": "rte"}}
    small = read(tmp_path, columns=columns, seeds=[0])
    for cell in small.cells:
        finished(cell)
    header, _ = tables.table(Sheet.of(small))
    assert header == ["", "weights trained", "short: RTE accuracy", "long: RTE accuracy"]  # and no mean of the two
    assert "`mean`" not in tables.as_markdown(Sheet.of(small))


def test_a_figure_is_drawn_twice_the_same(grid: Grid, tmp_path: Path):
    first = {path.name: path.read_bytes() for path in figures.draw(Sheet.of(grid), tmp_path / "a")}
    second = {path.name: path.read_bytes() for path in figures.draw(Sheet.of(grid), tmp_path / "b")}
    assert sorted(first) == ["small.png", "small.svg"] and first == second
    found = figures.lines(Sheet.of(grid), FIGURE["panels"][0])
    assert {label: [x for x, _ in points] for label, points in found.items()} == {
        "RTE, random": [2.0],
        "COLA, random": [1.0],
        "RTE, dense": [3.0],
        "COLA, dense": [3.0],
    }
    assert figures._seeds([place for _, place in found["RTE, random"]]) == "2 seeds"
    assert figures._seeds([place for _, place in found["RTE, dense"]]) == "1 of 2 seeds"
    assert figures._seeds([place for line in found.values() for _, place in line]) == "0 to 2 of 2 seeds"


def test_a_sweep_is_a_line_and_the_dense_row_a_level(tmp_path: Path):
    panel = {"x": "density", "line": "row", "level": "dense"}
    rows = {"dense": {"method": "dense"}, "set": {"method": "set", "sweep": {"density": [0.1, 0.2]}},
            "erk": {"method": "set", "distribution": "erk", "density": 0.1}}  # fmt: skip
    columns = {"rte": {"task": "rte"}}
    small = read(tmp_path, rows=rows, columns=columns, seeds=[0], figure={"panels": [panel]})
    for cell in small.cells:
        finished(cell)
    found = figures.lines(Sheet.of(small), panel)
    assert {label: [x for x, _ in points] for label, points in found.items()} == {"set": [0.1, 0.2], "erk": [0.1]}
    assert figures._levels(Sheet.of(small), panel) == [tables.Sheet.of(small).places["dense", "rte"].mean]
    assert all(path.stat().st_size for path in figures.draw(Sheet.of(small), tmp_path / "out"))


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ({}, "describes no figure"),
        ({"panels": [{"label": "x"}]}, "a panel needs `x`"),
        ({"panels": [1]}, "`[0]` of `panels` must be an object"),
        ({"panels": {"x": "density"}}, "`panels` must be a list"),
        ({"panels": [{"x": "density"}], "panel": 1}, "unknown key 'panel'; did you mean panels?"),
        ({"panels": [{"x": ["density"]}]}, "`x` of a panel must be a text, not ['density']"),
        ({"panels": [{"x": "density", "where": 3}]}, "`where` of a panel must be an object"),
        ({"panels": [{"x": "density", "names": {"a": 3}}]}, "of `names` of a panel must be a text, not 3"),
        ({"panels": [{"x": "task"}]}, "`task`, on the axis of a panel"),
        ({"panels": [{"x": "density", "were": {}}]}, "unknown key 'were'; did you mean where?"),
        ({"panels": [{"x": "density", "where": {"method": "fish"}}]}, "no row has"),
        ({"panels": [{"x": "densty"}]}, "there is no setting 'densty'"),
        (FIGURE, "has no finished run yet"),
    ],
)
def test_bad_figures(tmp_path: Path, figure: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        figures.draw(Sheet.of(read(tmp_path, figure=figure)), tmp_path)


def test_flops_that_were_not_counted_are_a_dash(tmp_path: Path):
    small = read(tmp_path, columns={"rte": {"task": "rte"}}, seeds=[0])
    counted = {"forward_flops": 2e9, "training_flops": 6e12, "training_flops_per_example": 6e9, "forward_share": 0.5}
    finished(small.cells[0], 0.5, flops={**counted, "training_share": 0.5})
    finished(small.cells[1], 0.5, flops={"encoder_active_entries": 3.0})
    assert cost_tables.flops(Sheet.of(small))[1] == []  # one share alone is no comparison
    three = read(tmp_path, rows={k: {"method": k} for k in ("random", "fish", "magnitude")}, seeds=[0])
    for cell, share in zip(three.cells, (0.5, 0.7), strict=False):
        finished(cell, 0.5, flops={**counted, "training_share": share})
    finished(three.cells[-1], 0.5)
    lines = cost_tables.flops(Sheet.of(three))[1]
    assert [line[-1] for line in lines if "-" in line] == ["-"] and len(lines) > 2
