"""From a grid with a sweep to drop points: rows, chains, refinement, table, figure."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from glue_sparse.cli import essential_sparsity as script
from glue_sparse.experiments import grids, sweeps
from glue_sparse.experiments.cells import Grid
from glue_sparse.reports import curves
from glue_sparse.reports.figures import drop_points as curve_figures
from glue_sparse.reports.sheet import Sheet
from small_grids import finished

ROOT = Path(__file__).parents[2]

ROWS: dict[str, Any] = {
    "dense": {"method": "one_shot", "sparsity": 0.0},
    "magnitude": {"method": "one_shot", "sweep": {"sparsity": [0.2, 0.4]}},
    "ticket": {"method": "lottery_ticket", "chain": "dense", "sweep": {"sparsity": [0.1, 0.19]}},
}
COST = {"masked_entries": 500, "trainable": 5, "num_entries": 1000}


def write(folder: Path, rows: dict[str, Any] = ROWS) -> Path:
    path = folder / "sweep.yaml"
    columns = {"rte": {"task": "rte"}}
    grid = {"title": "sweep", "base": {"model": "minilm"}, "rows": rows, "columns": columns, "seeds": [0, 1]}
    path.write_text(yaml.safe_dump(grid, sort_keys=False))
    return path


def read(folder: Path, **options: Any) -> Grid:
    return grids.read(write(folder), output_dir=folder / "runs", **options)


def fill(grid: Grid, scores: dict[str, tuple[float, float]]) -> None:
    for row, found in scores.items():
        for cell, score in zip(grid.at(row, "rte"), found, strict=True):
            finished(cell, score, cost=COST)


FALLING = {"dense": (0.900, 0.902), "magnitude-0.2": (0.898, 0.900), "magnitude-0.4": (0.870, 0.872)}


def test_a_sweep_is_a_row_per_value_and_a_chain_links_them(tmp_path: Path):
    grid = read(tmp_path)
    assert list(grid.rows) == ["dense", "magnitude-0.2", "magnitude-0.4", "ticket-0.1", "ticket-0.19"]
    assert grid.family["magnitude-0.4"] == "magnitude" and "dense" not in grid.family
    starts = {cell.row: cell.start.row if cell.start else None for cell in grid.cells}
    assert starts["ticket-0.1"] == "dense" and starts["ticket-0.19"] == "ticket-0.1" and not starts["magnitude-0.2"]
    order = [cell.row for cell in grid.cells]
    assert order.index("dense") < order.index("ticket-0.1") < order.index("ticket-0.19")
    ticket = next(cell for cell in grid.cells if cell.row == "ticket-0.19")
    assert ticket.start and f"--start_diff {ticket.start.folder}" in " ".join(ticket.argv)
    assert len(ticket.commands()) == 1  # a ticket prunes by itself
    assert [cell.row for cell in read(tmp_path, rows=["ticket"]).cells][0] == "dense"
    assert list(read(tmp_path, rows=["magnitude"]).rows) == ["magnitude-0.2", "magnitude-0.4"]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"sparsity": []}, "one setting with a list of numbers"),
        ({"sparsity": ["a"]}, "one setting with a list of numbers"),
        ({"sparsity": [0.1], "seed": [1]}, "one setting with a list of numbers"),
        ([0.1], "one setting with a list of numbers"),
        ({"sparsity": [0.1, 0.1]}, "names a value twice"),
        ({"sparsity": [0.1, 1.5]}, "sparsity: must be in"),
    ],
)
def test_bad_sweeps(tmp_path: Path, sweep: Any, message: str):
    with pytest.raises(ValueError, match=message):
        grids.read(write(tmp_path, {"one": {"method": "one_shot", "sweep": sweep}}))


def test_a_row_cannot_start_from_itself(tmp_path: Path):
    rows = {"a": {"method": "lottery_ticket", "start": "b"}, "b": {"method": "lottery_ticket", "start": "a"}}
    with pytest.raises(ValueError, match="in the end, from itself"):
        grids.read(write(tmp_path, rows))


def test_lines_hold_what_has_run(tmp_path: Path):
    grid = read(tmp_path)
    assert curves.lines(Sheet.of(grid)) == []
    fill(grid, FALLING)
    (line,) = curves.lines(Sheet.of(grid))
    assert (line.method, line.title, line.metric, line.model_share) == ("magnitude", "RTE", "accuracy", 0.5)
    assert line.is_sweep and line.model == "minilm"
    assert line.curve.sparsities == (0.0, 0.2, 0.4) and line.curve.scores[2].tolist() == pytest.approx([87.0, 87.2])


def test_the_table_has_both_denominators(tmp_path: Path):
    grid = read(tmp_path)
    fill(grid, FALLING)
    text = curves.as_markdown(curves.lines(Sheet.of(grid)), 1.0, False)
    # from 89.9 at 0.2 to 87.1 at 0.4; 89.1 is reached after 0.8 of 2.8 points
    assert "| 0.257 " in text and "| 0.129 " in text and "| found " in text and "90.10 ± 0.14" in text
    assert "above 0.400" in curves.as_markdown(curves.lines(Sheet.of(grid)), 5.0, False)
    assert "| above 0.4 " in curves.as_markdown(curves.lines(Sheet.of(grid)), 5.0, False)  # the interval
    assert "above 0.200" in curves.as_markdown(curves.lines(Sheet.of(grid)), 5.0, False)
    csv = curves.as_csv(curves.lines(Sheet.of(grid))).splitlines()
    assert csv[4] == "minilm,RTE,accuracy,magnitude,0.2,0.100000,1,90.0000"


def test_an_unfinished_seed_is_named_and_leaves_the_verdict_open(tmp_path: Path):
    grid = read(tmp_path)
    fill(grid, FALLING)
    (grid.at("magnitude-0.4", "rte")[1].folder / "results.json").unlink()
    text = curves.as_markdown(curves.lines(Sheet.of(grid)), 1.0, False)
    assert "Left out: RTE, magnitude at 0.4, which has seeds 0 only." in text and "| undetermined " in text
    text = curves.as_csv(curves.lines(Sheet.of(grid)))
    assert len(text.splitlines()) == 1 + 2 + 2 + 1  # also the run that is left out


def test_a_row_without_a_sweep_is_a_single_point(tmp_path: Path):
    rows = {**ROWS, "n-m": {"method": "one_shot", "pattern": "1:4"}}
    grid = grids.read(write(tmp_path, rows), output_dir=tmp_path / "runs")
    fill(grid, FALLING)
    for cell in grid.at("n-m", "rte"):
        finished(cell, 0.8, cost={**COST, "sparsity": 0.75})
    sweep, single = curves.lines(Sheet.of(grid))
    assert not single.is_sweep and single.curve.sparsities == (0.0, 0.75) and sweep.is_sweep
    assert "n-m" not in curves.as_markdown([sweep, single], 1.0, False)
    assert curves.refinements([single], set(), 1.0, False, 0.02) == {}
    paths = curve_figures.draw([sweep, single], 1.0, False, tmp_path / "results", "points", "title")
    assert all(path.stat().st_size > 1000 for path in paths)
    with pytest.raises(ValueError, match="has a sweep over sparsity"):
        curves.check(grids.read(write(tmp_path, rows), rows=["dense", "n-m"]))


def test_the_step_with_the_drop_is_halved_until_it_is_small(tmp_path: Path):
    grid = read(tmp_path)
    fill(grid, FALLING | {"ticket-0.1": (0.5, 0.5), "ticket-0.19": (0.5, 0.5)})
    found = curves.lines(Sheet.of(grid))
    assert curves.refinements(found, {"ticket"}, 1.0, False, 0.02) == {"rte": {"magnitude": 0.3}}
    assert curves.refinements(found, {"ticket"}, 1.0, False, 0.2) == {}
    assert curves.refinements(found, {"ticket"}, 5.0, False, 0.02) == {}


def test_added_points_are_found_again(tmp_path: Path):
    fill(read(tmp_path), FALLING)
    more = read(tmp_path, more={"magnitude": [0.3]})
    assert "magnitude-0.3" in more.rows
    fill(more, {"magnitude-0.3": (0.889, 0.891)})
    (tmp_path / "runs" / "minilm" / "magnitude-old").mkdir()
    again = grids.further_values(write(tmp_path), read(tmp_path))
    assert sorted(again["magnitude"]) == [0.2, 0.3, 0.4]
    (line,) = curves.lines(Sheet.of(read(tmp_path, more=again)))
    assert line.curve.sparsities == (0.0, 0.2, 0.3, 0.4)


def test_names_of_rows_read_back():
    assert sweeps.row_name("magnitude", 0.45) == "magnitude-0.45" and sweeps.row_name("a", 0.569533) == "a-0.569533"


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> int:
    places = {"config": write(folder), "output_dir": folder / "runs", "results_dir": folder / "results"}
    where = [word for flag, place in places.items() for word in (f"--{flag}", str(place))]
    return script.main([*words, *where])


def test_show_writes_table_points_and_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    fill(read(tmp_path), FALLING)
    assert call(monkeypatch, tmp_path, "show", "--rows", "dense", "magnitude") == 0
    assert "| magnitude |" in capsys.readouterr().out
    for ending in ("md", "csv", "png", "svg"):
        assert (tmp_path / "results" / f"sweep_drop_points.{ending}").stat().st_size > 100


def test_run_refines_with_the_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The runner is replaced by one that writes results; what is asked of it is what is tested."""
    asked: list[str] = []

    def run_here(grid: Grid, jobs: int) -> list[Any]:
        for cell in grid.cells:
            if cell.result() is None:
                asked.append(cell.name)
                lost = 0.1 * max(0.0, cell.arguments.method.sparsity - 0.2)
                finished(cell, 0.9 - 0.001 * cell.seed - lost, cost=COST)
        return []

    monkeypatch.setattr(script.runner, "run_here", run_here)
    assert call(monkeypatch, tmp_path, "run", "--rows", "dense", "magnitude", "--refine", "2", "--jobs", "2") == 0
    assert asked[-4:] == [f"magnitude-{v}/rte/seed{s}" for v in ("0.3", "0.35") for s in (0, 1)]
    asked.clear()
    call(monkeypatch, tmp_path, "run", "--rows", "dense", "magnitude", "--refine", "1", "--least_step", "0.06")
    assert asked == []
    points = ["--rows", "dense", "magnitude-0.2", "magnitude-0.4"]  # points of a sweep are refined like all of it
    call(monkeypatch, tmp_path, "run", *points, "--refine", "3", "--least_step", "0.04", "--name", "mine")
    assert asked == [f"magnitude-0.325/rte/seed{seed}" for seed in (0, 1)]
    assert "magnitude,0.35," in (tmp_path / "results" / "mine.csv").read_text()


def test_bad_requests_end_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    eps, jobs = ["show", "--eps", "0"], ["run", "--jobs", "0"]
    for bad in (eps, jobs, ["show", "--rows", "magnitude"], ["show", "--rows", "magnitud"]):
        with pytest.raises(SystemExit) as error:
            call(monkeypatch, tmp_path, *bad)
        assert error.value.code == (2 if bad in (eps, jobs) else 1)
        assert capsys.readouterr().err.count("error: ") == 1
