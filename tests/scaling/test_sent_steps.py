"""What two ranks send in a step of full fine-tuning, LoRA and active entries, and the tables of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from forked import run_ranks
from glue_sparse.benchmarks.sharded_steps import METHODS, MODELS, Measured
from glue_sparse.benchmarks.sharded_tables import page, predicted, sent_table, times_table
from glue_sparse.cli import benchmark
from glue_sparse.scaling.devices import Device, read
from glue_sparse.writing.fields import typed
from sent_steps import SHAPE
from shared_runs import made_once

JOB = Path(__file__).parents[1] / "helpers" / "sent_steps.py"
WAYS = [(model, method, reshards) for model in MODELS for method in METHODS for reshards in (True, False)]
Told = dict[str, Any]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = made_once(tmp_path_factory, "sent_steps", lambda folder: run_ranks(JOB, str(folder), count=2))
    first, other = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    assert first == other  # counts, and times of the slower one
    return first


def of(told: Told, *way: object) -> Measured:
    (one,) = (one for one in told["found"] if (one["model"], one["method"], one["reshards"]) == way)
    return Measured(**one)


@pytest.mark.parametrize("reshards", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_active_entries_send_four_bytes_for_each_number_that_trains(model: str, reshards: bool, told: Told):
    one, whole = of(told, model, "active", reshards), of(told, model, "full", reshards)
    assert one.trained == int(0.005 * one.weights) and one.trained % 2 == 0  # an odd one is sent as the next
    assert one.sent["gradients"] == 4 * one.trained
    assert one.calls["gradients"] == 2 and one.handed_in["gradients"] == 6 * one.trained  # no gradient beside them
    assert "other" not in one.calls
    values, head = one.gradient_bytes()
    assert (values, head) == (4 * (one.trained - one.head), 4 * one.head)
    assert whole.trained == one.weights and one.calls["weights"] == whole.calls["weights"]


def test_a_head_is_not_put_together_where_it_is_whole_on_each_rank(told: Told):
    for reshards in (True, False):
        one, whole = of(told, "classifier", "active", reshards), of(told, "classifier", "full", reshards)
        assert one.head == 34 and whole.sent["weights"] - one.sent["weights"] == 4 * 34 / 2


@pytest.mark.parametrize("way", [way for way in WAYS if way[0] == "decoder"])
def test_bytes_of_a_decoder_are_those_that_its_shape_predicts(way: tuple[str, str, bool], told: Told):
    one = of(told, *way)
    cell = predicted(SHAPE, one, 2, read("h100"))
    assert {"weights": 0, "gradients": 0, "other": 0, **one.sent} == cell.sent


def test_constants_of_the_machine_are_a_device(told: Told):
    device = typed(Device, told["device"], "told")
    assert device.node_gpus.value == 2 and "loopback" in device.title
    assert device.bandwidth(2) == device.node_link.value  # no share of it is assumed
    text = page([Measured(**one) for one in told["found"]], SHAPE, device, 2)
    assert "fastest / apart" in text and text.count("| active | on ") == 6


def made(method: str, trained: int, sent: dict[str, int], seconds: list[float]) -> Measured:
    return Measured("classifier", method, True, 2000, trained, 4, sent=sent, seconds=seconds)


def test_tables_say_shares_of_full_fine_tuning():
    found = [
        made("full", 2000, {"weights": 8000, "gradients": 4000, "other": 8}, [0.3, 0.1, 0.2]),
        made("active", 20, {"weights": 8000, "gradients": 80}, [0.15, 0.05, 0.1]),
    ]
    assert [line.split(" | ") for line in words(sent_table(found))[2:]] == [
        ["classifier", "full", "on", "2,000", "8,000", "3,992", "8", "8", "12,008", "100.00 %"],
        ["classifier", "active", "on", "20", "8,000", "64", "16", "0", "8,080", "2.00 %"],
    ]
    assert words(times_table(found))[3] == "classifier | active | on | 100.0 | 50.0-150.0 | 0.50"


def words(table: str) -> list[str]:
    """Lines of a table without what pads them."""
    return [" | ".join(cell.strip() for cell in line.strip("| ").split("|")) for line in table.splitlines()]


def test_flags_of_ranks_go_with_them(capsys: pytest.CaptureFixture[str]):
    for line, sentence in (
        ("--num_processes 2", "--num_processes has no effect without --sharded"),
        ("--hidden_size 64", "--hidden_size has no effect without --sharded"),
        ("--out x.json", "--out has no effect without --large, --sharded"),
        ("--sharded --num_processes 1", "argument --num_processes: must be at least 2, got 1"),
        ("--sharded --hidden_size 30", "`num_attention_heads` must divide --hidden_size"),
    ):
        with pytest.raises(SystemExit):
            benchmark.main(line.split())
        assert capsys.readouterr().err.startswith(f"error: {sentence}")


@pytest.mark.slow
def test_ranks_are_started_and_their_numbers_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "sharded.json"
    assert benchmark.main(["--sharded", "--hidden_size", "64", "--steps", "1", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert all(shown.count(f"| {method} ") >= 4 for method in METHODS)
    assert len(json.loads(out.read_text())["found"]) == len(WAYS)
