"""Seconds to a loss: who takes part, what a row says, and a whole measurement in small."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from glue_sparse.benchmarks import time_to_loss
from glue_sparse.benchmarks.simulated_text import SIMULATED
from glue_sparse.benchmarks.time_to_loss import QUICK, Contender, Spec, narrower, row
from glue_sparse.benchmarks.time_to_loss_page import page
from glue_sparse.cli.benchmark import main
from glue_sparse.costs.bert_flops import encoder_flops
from pretraining_text import folder_of_text

TINY = replace(
    QUICK, layers=1, hidden=32, block_sizes=(16,), target=0.0, most_steps=8, check_every=4, scored=2, rounds=8,
    interval=4, seeds=(0, 1),
)  # fmt: skip


def ran(spec: Spec, seconds: list[float], reached: int | None) -> Contender:
    return Contender(spec, nn.Identity(), None, seconds, {4: 5.0, 8: 3.5}, reached)


@pytest.mark.parametrize("density", [0.1, 0.25, 1.0])
def test_the_narrower_network_has_about_the_operations_of_the_sparse_one(density: float):
    setting = time_to_loss.FULL
    width = narrower(setting, density)
    dense, sparse = (encoder_flops(2, *of, setting.length) for of in ((width, 1.0), (setting.hidden, density)))
    assert dense == pytest.approx(sparse, rel=0.1) and width % 8 == 0


def test_seconds_are_steps_times_seconds_per_step_with_moves_by_how_often_they_are():
    dense = ran(Spec("dense", 32, 1.0), [9.0, *[2.0] * 7], 8)
    tiles = ran(Spec("tiles", 32, 1.0, 0.25, 16), [9.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 5.0], 8)
    found = row([tiles], [dense], TINY)
    assert found["to_dense"] == [0.5] * 3 and found["moving"] == 1.0  # 4 seconds more in one step of 4
    assert found["per_step"] == 2.0 and found["seconds"] == 16.0 and found["weights"] == 3072
    later = replace(tiles, reached=4), tiles, replace(tiles, reached=6)
    assert row(later, [dense] * 3, TINY)["seconds"] == 12.0
    late = row([tiles, replace(tiles, reached=None)], [dense] * 2, TINY)
    assert late["seconds"] is None and late["last_loss"] == 3.5
    networks = [row([dense], [dense], TINY), row(later, [dense] * 3, TINY), late]
    facts = {"setting": vars(TINY), "networks": networks, "text": "t", "device": "cpu", "threads": 1}
    lines = page(facts).splitlines()
    assert "1 of 2 seeds in 8 (3.50)" in lines[6] and "6 (4 to 8)" in lines[5]
    assert "1.00 x the dense steps" in lines[5] and "| 0.75 " in lines[5]


def test_steps_to_a_loss_depend_on_the_seed_alone():
    one, other = (time_to_loss.measure(torch.device("cpu"), TINY) for _ in range(2))
    assert one["text"] == SIMULATED
    for found, again in zip(one["networks"], other["networks"], strict=True):
        assert found["losses"] == again["losses"] and found["steps"] == [None, None]
        first, second = found["losses"]
        assert [*first] == [*second] == [4, 8] and first != second
    names = [found["name"] for found in one["networks"]]
    assert names[0] == "dense" and names[1].endswith("wide") and names[2] == "tiles of 16, density 0.25"
    losses = [found["losses"][0][8] for found in one["networks"]]
    assert len({*losses}) == 3


def test_the_command_prints_a_table_and_writes_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(time_to_loss, "QUICK", replace(TINY, target=100.0))
    folder, out = folder_of_text(tmp_path), str(tmp_path / "a.json")
    assert main(["--time_to_loss", "--quick", "--data_dir", folder, "--out", out]) == 0
    said = capsys.readouterr().out
    assert "masked LM (wiki.train.txt)" in said and said.count("| 4 (4 to 4) ") == 3 and (tmp_path / "a.json").exists()


def test_the_simulated_text_is_enough_for_all_that_is_measured_on_it():
    task, title = time_to_loss._task(time_to_loss.SIMULATION, None)
    assert title == SIMULATED and len(task.evals["validation"]) >= time_to_loss.SIMULATION.scored  # type: ignore


def test_too_little_text_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--time_to_loss", "--data_dir", folder_of_text(tmp_path)])
    assert ended.value.code == 1
    assert "which 64 make a step" in capsys.readouterr().err
