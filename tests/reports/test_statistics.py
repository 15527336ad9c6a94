"""Intervals and paired tests in tables, against numbers worked by hand and formulas written out."""

import csv
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from glue_sparse.cli import table as command
from glue_sparse.experiments import runner
from glue_sparse.experiments.cells import Grid
from glue_sparse.reports import comparisons, tables
from glue_sparse.reports.sheet import Sheet
from glue_sparse.reports.statistics import Comparison, Statistics, compared, corrected, half_width
from small_grids import finished, read, write

ROWS: dict[str, Any] = {"random": {"method": "random"}, "fish": {"method": "fish"}, "dense": {"method": "dense"}}
T_2 = 4.302652729749464
"""97.5 % quantile of Student's t with 2 degrees of freedom."""


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def scored(folder: Path, scores: dict[tuple[str, str], tuple[float, ...]], metric: str = "accuracy") -> Grid:
    """A grid of three seeds, of which the first ones have these scores."""
    grid = read(folder, rows=ROWS, seeds=[0, 1, 2])
    for (row, column), values in scores.items():
        for cell, value in zip(grid.at(row, column), values, strict=False):
            finished(cell, value, metric)
    return grid


SCORES = {
    ("random", "rte"): (0.60, 0.62, 0.64), ("dense", "rte"): (0.61, 0.65, 0.69),  # differences -1, -3, -5
    ("fish", "rte"): (0.63, 0.67, 0.71), ("random", "cola"): (0.5, 0.6), ("dense", "cola"): (0.4,),
}  # fmt: skip


def test_three_seeds_worked_by_hand(tmp_path: Path):
    sheet = Sheet.of(scored(tmp_path, SCORES), Statistics(95, "dense"))
    header, lines = tables.table(sheet)
    cells = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert cells["random"]["RTE accuracy"] == f"62.00 ± {T_2 * 2 / 3**0.5:.2f} (3)"  # standard deviation 2
    assert cells["random"]["COLA accuracy"] == f"55.00 ± {12.706204736 * 7.0710678 / 2**0.5:.2f} (2 of 3)"
    assert cells["dense"]["COLA accuracy"] == "40.00 (1 of 3)"
    # t of -1, -3, -5 is -3 / (2 / sqrt 3); with 2 degrees of freedom p = 1 - |t| / sqrt(t^2 + 2)
    t = 3 / (2 / 3**0.5)
    p = 1 - t / (t**2 + 2) ** 0.5
    assert comparisons.table(sheet) == (
        ["", "RTE accuracy", "COLA accuracy"],
        [["random", f"-3.00 ± {T_2 * 2 / 3**0.5:.2f}, p = {p:.3f} (3)", "+10.00, no test (1)"],
         ["fish", "+2.00 ± 0.00, all equal (3)", "-"]],
    )  # fmt: skip


def test_formulas_written_out():
    draws = np.random.default_rng(0)
    for count in (2, 3, 10):
        one, other = draws.normal(size=count), draws.normal(size=count)
        d = one - other
        error = d.std(ddof=1) / count**0.5
        found = compared(list(one), list(other), 90)
        assert found.difference == pytest.approx(d.mean()) and found.pairs == count
        assert found.half_width == pytest.approx(stats.t.ppf(0.95, count - 1) * error)
        assert found.p == pytest.approx(2 * stats.t.sf(abs(d.mean() / error), count - 1))
        low, high = stats.t.interval(0.9, count - 1, loc=one.mean(), scale=one.std(ddof=1) / count**0.5)
        assert half_width(list(one), 90) == pytest.approx((high - low) / 2)
    assert half_width([1.0], 95) is None and half_width([1.0, 1.0], 95) == 0


def test_equal_differences_are_not_tested_however_they_are_rounded():
    for scores in ((0.1, 0.2, 0.3), (61.1, 62.7, 60.3), (1e-5, 3e-5, 7e-5), (0.0, 0.0)):
        for shift in (0.0, 0.1, scores[-1] * 7):
            found = compared([score + shift for score in scores], scores, 95)
            assert found.p is None and found.half_width == 0 and found.difference == pytest.approx(shift)
    assert compared([1.0, 1.0, 1.001], [0.0, 0.0, 0.0], 95).p is not None


def test_p_values_by_holm():
    """0.01, 0.04, 0.03 and 0.005: the smallest times four, the next times three, then never smaller than before."""
    ps, wanted = (0.01, 0.04, None, 0.03, 0.005), (0.03, 0.06, None, 0.06, 0.02)
    found = corrected({(str(i), ""): Comparison(3, 1.0, 1.0, p) for i, p in enumerate(ps)})
    assert [one.p_holm and round(one.p_holm, 9) for one in found.values()] == [*wanted]
    assert [one.p for one in found.values()] == [*ps]
    (one,) = corrected({("", ""): Comparison(3, 1.0, 1.0, 0.9)}).values()
    assert one.p_holm == 0.9


def test_csv_has_numbers_in_columns_of_their_own(tmp_path: Path):
    grid = scored(tmp_path, SCORES)
    lines = [*csv.DictReader(io.StringIO(tables.as_csv(Sheet.of(grid, Statistics(80, "dense")))))]
    by_place = {(line["row"], line["column"]): line for line in lines}
    random = by_place["random", "rte"]
    width = stats.t.ppf(0.9, 2) * 2 / 3**0.5
    for key in ("half_width", "difference_half_width"):
        assert float(random[key]) == pytest.approx(width)
    assert (random["interval"], random["against"], random["pairs"]) == ("80", "dense", "3")
    assert float(random["std"]) == pytest.approx(2)
    assert float(random["difference"]) == pytest.approx(-3) and random["p"] == random["p_holm"] != ""
    assert {by_place["dense", "rte"][key] for key in ("against", "difference", "p")} == {""}
    assert by_place["fish", "rte"]["p"] == "" and by_place["dense", "cola"]["half_width"] == ""
    plain = tables.as_csv(Sheet.of(grid)).splitlines()
    assert plain[0].endswith(",source") and all(len(line.split(",")) == 9 for line in plain)


def test_latex_and_captions_say_the_same(tmp_path: Path):
    scores = {("random", "rte"): (0.9, 0.9003, 0.8998), ("dense", "rte"): (0.5, 0.5001, 0.5002)}
    sheet = Sheet.of(scored(tmp_path, scores), Statistics(99, "dense"))  # 9.925 * 0.03055 / sqrt 3
    text = tables.as_latex(sheet)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert r"+39.99 $\pm$ 0.18, p $<$ 0.001 (3) & - \\" in text
    for said in (text, tables.as_markdown(sheet)):
        assert "half of its 99% t interval over seeds" in said and "above 0 is better" in said
        assert "Holm's method over the tests of this table (1)" in said and "Each row minus dense" in said
    plain = tables.as_markdown(Sheet.of(sheet.grid))
    assert "sample standard deviation over seeds" in plain and "minus" not in plain and "Holm" not in plain


def test_signs_of_losses_read_rightly(tmp_path: Path):
    scores = {("random", "rte"): (2.5, 2.75), ("dense", "rte"): (2.25, 2.0)}
    sheet = Sheet.of(scored(tmp_path, scores, "mlm_loss"), Statistics(against="dense"))
    assert comparisons.table(sheet)[1][0][1].startswith("+0.500 ± 3.177, p = 0.295 (2)")
    assert "below 0 is better" in comparisons.captions(sheet)[0] and "95% t interval" in comparisons.captions(sheet)[0]
    for cell in sheet.grid.at("random", "cola"):
        finished(cell, 0.5)
    mixed = Sheet.of(sheet.grid, sheet.statistics)
    assert "above 0 is better in percent" in (caption := comparisons.captions(mixed)[0])
    assert "below 0 is better in nats" in caption and "smaller" not in caption


def test_runs_of_different_metrics_or_seeds_are_not_paired(tmp_path: Path):
    grid = scored(tmp_path, {("random", "rte"): (0.5, 0.6, 0.7)})
    for cell, metric in zip(grid.at("dense", "rte")[1:], ("accuracy", "f1"), strict=True):
        finished(cell, 0.5, metric)
    found = Sheet.of(grid, Statistics(against="dense")).comparisons
    ten: Any = pytest.approx(10)
    assert found == {("random", "rte"): Comparison(1, ten, None, None)}


WRONG = {
    "--interval 0": "must be in (0, 100), got 0",
    "--interval 100": "must be in (0, 100), got 100",
    "--against dnse": "unknown row 'dnse'; did you mean dense?",
    "--against dense --rows dense": "is the only row: choose others beside it by --rows",
    "--against dense --rows fish": "unknown row 'dense'",
}


@pytest.mark.parametrize("flags", WRONG)
@pytest.mark.parametrize("verb", ["run", "show"])
def test_what_no_table_can_show_is_said_before_any_run(
    verb: str, flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runner, "run_here", lambda *_: pytest.fail("a run was started"))
    words = [verb, str(write(tmp_path, rows=ROWS)), "--output_dir", str(tmp_path / "runs"), *flags.split()]
    with pytest.raises(SystemExit):
        command.main(words)
    assert WRONG[flags] in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["interval 95", "against dense"])
def test_folders_of_runs_have_neither(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scored(tmp_path, SCORES)
    with pytest.raises(SystemExit):
        command.main(["show", str(tmp_path / "runs"), *f"--{flag}".split()])
    assert f"--{flag.split()[0]} goes with a grid" in capsys.readouterr().err
