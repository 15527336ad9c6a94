"""Where the entries of a grid's rows lie, from results alone: sums over runs, and the same as from diffs."""

import re
from pathlib import Path
from typing import Any

import pytest

import small_grids
from glue_sparse import SparseDiff, attach, noise, select
from glue_sparse.analysis.density import placement
from glue_sparse.analysis.parts import BY
from glue_sparse.cli import diff as command
from glue_sparse.core.params import body_names, head_names
from glue_sparse.costs.by_tensor import active_by_tensor
from glue_sparse.records import archive
from glue_sparse.reports import where
from networks import bert
from rare import rarely


def counts_of(seed: int) -> tuple[dict[str, Any], SparseDiff]:
    model = bert(num_hidden_layers=11)
    attach(model, select(noise(model, body_names(model, head_names(model)), seed=seed), 500))
    return active_by_tensor(model), SparseDiff.from_model(model)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Row `random` of two runs that lie otherwise, and `long` of one."""
    for cell in small_grids.read(tmp_path).cells:
        if cell.column == "rte" and (cell.row == "random" or cell.seed == 0):
            small_grids.finished(cell, active_by_tensor=counts_of(cell.seed)[0])
    return tmp_path / "runs"


@pytest.mark.parametrize("by", rarely(BY, {"layer"}))
def test_results_say_what_diffs_say(by: str, runs: Path):
    found = where.of_rows(archive.read([runs]), ["long", "random"], by)
    first, second = (placement(counts_of(seed)[1], by) for seed in (0, 1))
    assert [*found["long"].items()] == [*first.items()]  # in the same order, too
    assert found["random"] == {key: (first[key][0] + second[key][0], 2 * first[key][1]) for key in first}


def test_a_table_of_rows(runs: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main(["where", str(runs), "--rows", "random", "long"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"\| part +\| all entries +\| random +\| long +\|", out)
    assert re.search(r"\| number of entries +\| [\d,]+ +\| 1,068 +\| 534 +\|", out)
    for column in range(3):
        shares = [float(line.split("|")[2 + column].strip(" %")) for line in out.splitlines() if "%" in line]
        assert sum(shares) == pytest.approx(100, abs=0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "randm"], "unknown row 'randm'; did you mean random?"),
        (["--rows", "long"], "since they are older: "),
    ],
)
def test_rows_that_cannot_be_told(words: list[str], message: str, runs: Path, capsys: pytest.CaptureFixture[str]):
    cell = next(cell for cell in small_grids.read(runs.parent).cells if (cell.row, cell.seed) == ("long", 0))
    small_grids.finished(cell)
    with pytest.raises(SystemExit):
        command.main(["where", str(runs), *words])
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
