"""Results as files: collected from runs, shown again without them, and pages that are held to be up to date."""

import re
import shutil
from pathlib import Path

import pytest

from glue_sparse.cli import figure, results, table
from glue_sparse.records import archive
from glue_sparse.reports import pages
from small_grids import finished, read

ROOT = Path(__file__).parents[2]
PAGE = """# Mine

By hand.

<!-- results: table {grid} --rows random -->
old
<!-- end -->

<!-- results: made small -->
<!-- end -->

<!-- results: hours -->
<!-- end -->

More by hand.
"""
FIGURE = {"panels": [{"x": "num_train_epochs"}]}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of a grid, collected and gone, and a page about them."""
    monkeypatch.chdir(tmp_path)
    for number, cell in enumerate(read(tmp_path, figure=FIGURE).cells):
        finished(cell, 0.3 + number / 10, date=f"2026-01-0{1 + number % 3}T00:00:00", versions={"torch": "2.1"},
                 seconds={"choose": 100.0, "train": 350.0})  # fmt: skip
    (tmp_path / "runs").rename(tmp_path / "small")
    (tmp_path / "runs").mkdir()
    (tmp_path / "small").rename(tmp_path / "runs" / "small")
    assert results.main(["collect"]) == 0
    shutil.rmtree(tmp_path / "runs")
    page = tmp_path / "docs" / "results" / "mine.md"
    page.write_text(PAGE.format(grid=tmp_path / "small.yaml"))
    return page


def test_pages_are_built_from_collected_runs_alone(site: Path, capsys: pytest.CaptureFixture[str]):
    assert results.main(["build", "--check"]) == 1
    assert "not up to date: docs/results/mine.md" in capsys.readouterr().err and "old" in site.read_text()
    assert results.main(["build"]) == 0 and results.main(["build", "--check"]) == 0
    text = site.read_text()
    assert "old" not in text and "| random |" in text and "| long " not in text
    assert text.startswith("# Mine\n\nBy hand.\n") and text.endswith("\nMore by hand.\n")
    assert "* made: 2026-01-01 to 2026-01-03\n* versions: torch 2.1\n" in text and "* seeds: 0, 1\n" in text
    assert "* runs: 8, which took 1.0 hours together" in text
    assert re.search(r"\| small +\| 8 +\| 2 +\| 1.0 +\| 2026-01-01 to 2026-01-03 \|", text)
    file = site.parent / "runs" / "small.json"
    file.write_text(file.read_text().replace('"torch":"2.1"', '"torch":"2.2"'))
    assert results.main(["build", str(site.relative_to(Path.cwd())), "--check"]) == 1


def test_a_page_has_its_figures_beside_it(site: Path, tmp_path: Path):
    site.write_text(f"<!-- results: figure {tmp_path / 'small.yaml'} -->\n<!-- end -->\n")
    assert results.main(["build"]) == 0 and "\n![small](mine_small.png)\n" in site.read_text()
    assert (site.parent / "mine_small.png").stat().st_size > 1000 and (site.parent / "mine_small.svg").exists()


def test_a_table_and_a_figure_of_an_archive_are_those_of_its_runs(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [str(tmp_path / "small.yaml"), "--results_dir", str(tmp_path / "out")]
    archived = ["--archive", str(site.parent / "runs" / "small.json")]
    assert table.main(["show", *words, *archived]) == 0 and "| 30.00" not in (shown := capsys.readouterr().out)
    assert "(2)" in shown and figure.main([*words, *archived]) == 0
    file = site.parent / "runs" / "small.json"
    archive.write([one for one in archive.read([file]) if (one.row, one.column) == ("random", "rte")], file)
    assert table.main(["show", *words, *archived]) == 0
    assert "| long" in (shown := capsys.readouterr().out) and "have runs" not in shown
    assert table.main(["show", *words, *archived, "--begun"]) == 0
    assert "| long" not in (shown := capsys.readouterr().out) and shown.count("| random") > 0
    assert "(1 of 2 rows have runs)" in shown and "cola" not in shown.lower()
    with pytest.raises(SystemExit):
        table.main(["show", *words, *archived, "--output_dir", str(tmp_path / "elsewhere")])
    with pytest.raises(SystemExit):
        table.main(["show", *words, *archived, "--num_train_epochs", "7"])
    told = capsys.readouterr().err
    assert "error: `archive` stands" in told or "error: --archive stands" in told
    assert "small.json: " in told


def test_what_was_collected_before_stays(site: Path, tmp_path: Path):
    file = site.parent / "runs" / "small.json"
    before = archive.read([file])
    grid = read(tmp_path, seeds=[7])
    for cell in grid.cells:
        finished(cell)
    (tmp_path / "runs").rename(tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path / "small")
    results.collect(["small"], tmp_path, file.parent)
    assert {one.seed for one in archive.read([file])} == {0, 1, 7}
    assert [one for one in archive.read([file]) if one.seed < 7] == before


@pytest.mark.parametrize(("block", "reason"), [
    ("<!-- results: table -->\n<!-- end -->", "a grid is missing"),
    ("<!-- results: tabel x -->\n<!-- end -->", "table"),
    ("<!-- results: made nothing -->\n<!-- end -->", "no run is archived"),
    ("<!-- results: claims --runs runs -->\n<!-- end -->", "what a block says itself"),
    ("<!-- results: made small -->\n", "does not end"),
    ("nothing", "or else says"),
    (f"<!-- results: made small -->\n<!-- end -->\n{pages.BY_HAND}", "or else says"),
])  # fmt: skip
def test_a_page_that_cannot_be_built_is_named(site: Path, block: str, reason: str, capsys: pytest.CaptureFixture[str]):
    site.write_text(block)
    with pytest.raises(SystemExit):
        results.main(["build"])
    told = capsys.readouterr().err
    assert reason in told and len(told.splitlines()) == 1 and site.read_text() == block


def test_pages_of_this_checkout_are_up_to_date_and_say_what_is_generated():
    folder = ROOT / "docs" / "results"
    assert {path.name for path in pages.pages(folder)} == {path.name for path in pages.statuses(folder)}
    assert results.build(folder, folder / "runs", check=True) == []
    assert not any(f'"{root}' in path.read_text() for path in (folder / "runs").glob("*.json") for root in ("/", "~"))
