"""Notes of a grid, and its table of costs with them."""

from pathlib import Path

import pytest

from glue_sparse.reports import side_by_side, tables
from glue_sparse.reports.sheet import Sheet
from small_grids import finished, read


def test_a_note_stands_with_all_values_of_its_row(tmp_path: Path):
    rows = {"fish": {"method": "fish", "sweep": {"density": [0.005, 0.01]}}, "dense": {"method": "dense"}}
    grid = read(tmp_path, rows=rows, notes={"fish": "small files"})
    for cell in grid.cells[:3]:
        finished(cell, 0.25, cost={"state_bytes": 2_500_000})
    header, lines = side_by_side.table(Sheet.of(grid))
    assert header[:3] == ["", "task", "score"] and header[-1] == "good for"
    told = {line[0]: line[-1] for line in lines}
    assert told == {"fish-0.005": "small files", "fish-0.01": "small files", "dense": ""}
    by_place = {(line[0], line[1].partition(" ")[0]): line for line in lines}
    assert by_place["fish-0.005", "RTE"][2:-1] == ["25.00 (1 of 2)", "5", "0.500%", "0.00 MB", "2.50 MB", "3"]
    assert by_place["dense", "cola"][2:-1] == ["-"] * 6
    assert "| small files" in tables.as_markdown(Sheet.of(grid))


def test_a_grid_without_notes_has_no_such_table(tmp_path: Path):
    grid = read(tmp_path)
    finished(grid.cells[0])
    assert side_by_side.table(Sheet.of(grid))[1] == [] and "good for" not in tables.as_markdown(Sheet.of(grid))


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"fisch": "x"}, "`notes`: unknown row 'fisch'"),
        ({"long": 3}, "`notes"),
        (["long"], "`notes`"),
    ],
)
def test_notes_are_texts_about_rows(notes: object, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, notes=notes)
