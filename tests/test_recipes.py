"""Hours on the recipe pages are what scripts/estimate_hours.py prints, and its formula counts what it says."""

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.experiments import grid_file
from glue_sparse.experiments.told import parse
from rare import rarely

ROOT = Path(__file__).parents[1]
ESTIMATE: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "estimate_hours.py"))
PAGES = {path.stem: path.read_text() for path in (ROOT / "docs" / "recipes").glob("*.md")}
TABLE = re.compile(r"```bash\npython scripts/estimate_hours\.py (.*)\n```\n\n((?:\|.*\n)+)")
SHOWN = [(page, words, table) for page, text in sorted(PAGES.items()) for words, table in TABLE.findall(text)]
QUICK = [case for case in SHOWN if "--seeds 0 --tasks" not in case[1] and "qnli" in case[1] and case[0] == "cost"]


@pytest.mark.parametrize(("page", "words", "table"), rarely(SHOWN, QUICK))
def test_pages_show_what_the_script_prints(page: str, words: str, table: str, capsys: pytest.CaptureFixture[str]):
    assert ESTIMATE["main"](shlex.split(words)) == 0
    assert capsys.readouterr().out.strip() == table.strip()


def test_every_page_has_an_estimate_and_every_grid_a_page():
    assert QUICK and {page for page, _, _ in SHOWN} == {*PAGES}
    estimated = " ".join(words for _, words, _ in SHOWN).split()
    small = {"dynsparse", "quickstart", "fish_rates", "scores", "bank"}  # made for a machine without a GPU
    small |= {name for name in grid_file.names() if name.endswith("_small")}
    assert {*grid_file.names()} - small == {*grid_file.names()} & {*estimated}


def told(words: str) -> Any:
    return parse(["--method", "dense", *words.split()], config=DEFAULTS)


def test_examples_are_epochs_or_steps_and_each_worker_has_its_own():
    examples = ESTIMATE["examples_of"]
    assert examples(told("--task rte --num_train_epochs 3")) == 3 * 2_490
    assert examples(told("--task rte --max_train_samples 100 --num_train_epochs 2")) == 200
    assert examples(told("--task rte --max_steps 10 --per_device_train_batch_size 4")) == 40
    assert examples(told("--task cifar10 --hold_out 5000 --num_train_epochs 1")) == 45_000
    workers = "--merge_every 5 --num_workers 2 --simulate true"
    assert examples(told(f"--task rte --num_train_epochs 3.5 {workers}")) == 2 * 3.5 * 2_490


def test_an_example_costs_six_flops_for_a_weight_and_token_and_attention():
    flops = ESTIMATE["flops_of_example"]
    for model, weights in (("google-bert/bert-base-uncased", 84_934_656), ("minilm", 10_616_832)):
        found = flops(told(f"--task rte --model {model} --max_length 128"))
        assert 1.0 < found / (6 * weights * 128) < 1.1
    assert flops(told("--task cifar10 --model resnet9")) > 6 * 6_573_120  # a filter is used at many places of an image
    with pytest.raises(ValueError, match="unknown model"):
        flops(told("--task rte --model somebody/else"))


def test_hours_are_those_of_the_stated_speed(capsys: pytest.CaptureFixture[str]):
    assert ESTIMATE["main"](shlex.split("table_1 --rows dense --tasks mnli --seeds 0 1")) == 0
    _, runs, _, flops, hours = [cell.strip() for cell in capsys.readouterr().out.splitlines()[2].split("|")[1:-1]]
    assert runs == "2" and float(hours) == pytest.approx(float(flops) / (0.4 * 312e12) / 3600, abs=0.06)
