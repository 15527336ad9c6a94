"""Results that are damaged or of others: named and left out of a folder, an error where they are what is asked for."""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from glue_sparse.cli import figure, table
from glue_sparse.records import results
from pretraining_results import run
from small_grids import finished, read

GOOD = asdict(run("tiny", "dense", None, 2.0, 1.0))
FOREIGN: list[Callable[[Path], object]] = [
    lambda path: path.write_text("null"), lambda path: path.write_text("[]"), lambda path: path.write_text(""),
    lambda path: path.write_text('{"a": 1}'), lambda path: path.write_text("[" * 100_000), lambda path: path.mkdir(),
    lambda path: path.write_bytes(b"\xff\xfe"), os.mkfifo, lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("nothing"), lambda path: path.symlink_to(path),
    lambda path: path.symlink_to("/dev/null"),
]  # fmt: skip
"""What may stand in the place of results.json."""


@pytest.mark.parametrize("foreign", FOREIGN, ids=range(len(FOREIGN)))
def test_what_is_no_result_does_not_take_the_others_with_it(
    tmp_path: Path, foreign: Callable[[Path], object], caplog: pytest.LogCaptureFixture
):
    results.write(run("tiny", "dense", None, 2.0, 1.0), tmp_path / "good")
    (tmp_path / "bad").mkdir()
    foreign(tmp_path / "bad" / results.FILE_NAME)
    assert [asdict(one) for one in results.collect(tmp_path)] == [GOOD]
    (told,) = caplog.messages
    assert told.startswith(f"left out: {tmp_path / 'bad' / results.FILE_NAME} ") and len(told.splitlines()) == 1
    with pytest.raises(ValueError, match=r"bad.results.json (is not a result|cannot be read|is no|is not a regular)"):
        results.read(tmp_path / "bad" / results.FILE_NAME)
    with pytest.raises(ValueError, match="no results.json that can be read, of 1 below"):
        results.collect(tmp_path / "bad")


def test_the_table_of_a_folder_goes_on_and_name_a_few(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for number in range(8):
        (tmp_path / f"bad{number}").mkdir()
        (tmp_path / f"bad{number}" / results.FILE_NAME).write_text("{}")
    results.write(run("tiny", "dense", None, 2.0, 1.0), tmp_path / "good")
    caplog.set_level(logging.WARNING)
    assert table.main(["show", str(tmp_path)]) == 0
    assert len(caplog.messages) == 6 and caplog.messages[-1] == "left out: 3 more that are no results of this library"


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("cost", 5, "`cost` of it must be an object"),
        ("cost", {}, "it lacks `cost.num_entries`"),
        ("cost", {**GOOD["cost"], "num_entries": 0}, "`cost.num_entries` of it cannot be 0"),
        ("cost", {**GOOD["cost"], "trainable": -1}, "`cost.trainable` of it cannot be -1"),
        ("cost", {**GOOD["cost"], "trainable": 10**400}, "`cost.trainable` of it must be a finite number"),
        ("seconds", {}, "it lacks `seconds.choose`"),
        ("metrics", {}, "`metrics` of it names no split"),
        ("metrics", {"validation": {"loss": 1.0}}, "`metrics.validation` of it lacks mlm_loss"),
        ("metrics", {"validation": {"mlm_loss": None}}, "`metrics.validation.mlm_loss` of it must be a finite number"),
        ("metrics", {"validation": {"mlm_loss": float("nan")}}, "NaN is no number"),
        ("flops", {"forward_flops": 1}, "it lacks `flops.forward_share`"),
        ("communication", {"num_merges": 1}, "it lacks `communication.num_workers`"),
        ("checkpoints", {"count": 1}, "it lacks `checkpoints.bytes_mean`"),
        ("history", [5], "`history[0]` of it must be an object"),
        ("seed", True, "`seed` of it must be an integer, not True"),
        ("other", 1, "has a field 'other' in it that is not known"),
    ],
)
def test_a_result_says_all_that_tables_take_by_name(tmp_path: Path, part: str, value: Any, message: str):
    path = tmp_path / results.FILE_NAME
    path.write_text(json.dumps({**GOOD, part: value}))
    with pytest.raises(ValueError) as error:
        results.read(path)
    assert str(error.value).startswith(f"{path} is not a result of this library: ") and message in str(error.value)


def test_what_a_run_logged_is_read_as_numbers():
    one = run("tiny", "dense", None, 2.0, 1.0, history=[{"step": 1, "explored": 0.5}, {"step": 2, "explored": None}])
    assert one.logged("explored") == [(1, 0.5)] and one.logged("nothing") == []
    for log in ({"step": "x", "explored": 0.5}, {"explored": 0.5}, {"step": 1, "explored": "x"}):
        bad = run("tiny", "dense", None, 2.0, 1.0, history=[log])
        with pytest.raises(ValueError, match="in the history of a result must be a finite number"):
            figure.usual_kind(bad)


def test_a_damaged_result_of_a_cell_is_not_run_over_in_silence(tmp_path: Path):
    cell = read(tmp_path).cells[0]
    finished(cell)
    path = cell.folder / results.FILE_NAME
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match="delete it, and random/rte/seed0 runs again"):
        cell.result()
    assert path.exists()
