"""The programs of docs/tutorials run as they stand, one after the other, on small models and for a few steps."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from glue_sparse.cli.main import main
from glue_sparse.methods.registry import METHODS

PAGES = Path(__file__).parents[1] / "docs" / "tutorials"
SHORTER: dict[str, dict[str, str]] = {
    "decoder": {"max_steps=steps": "max_steps=min(steps, 2)", "[:40]": "[:2]", "[40:80]": "[40:42]",
                "range(64)": "range(2)", "num_samples=128": "num_samples=4"},
    "new_method": {},
    "own_model": {"num_train_epochs=10": "num_train_epochs=2", "checkpoint-45": "checkpoint-3",
                  "WORDS[9:])]": "WORDS[11:13])]"},
    "plain_pytorch": {"STEPS = 200": "STEPS = 8"},
}  # fmt: skip
"""Page without commands -> what a quick run has instead."""


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a folder of its own, and the methods that a page registers are gone after it."""
    monkeypatch.chdir(tmp_path)
    known = {*METHODS}
    yield
    for name in {*METHODS} - known:
        del METHODS[name]


def read(page: str, instead: dict[str, str]) -> str:
    text = (PAGES / f"{page}.md").read_text()
    for old, new in instead.items():
        assert old in text
        text = text.replace(old, new)
    return text


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def run(page: str, text: str) -> dict[str, Any]:
    """The names that its blocks leave."""
    names: dict[str, Any] = {}
    for block in blocks(text, "python"):
        exec(compile(block, f"{page}.md", "exec"), names)
    return names


@pytest.mark.parametrize("page", SHORTER)
def test_programs_run(page: str, capsys: pytest.CaptureFixture[str]):
    run(page, read(page, SHORTER[page]))
    found = capsys.readouterr().out
    if page == "new_method":
        for line in "".join(blocks(read(page, {}), "text")).splitlines():
            assert line in found
    if page == "own_model":
        counted, _, same, *_ = "".join(blocks(read(page, {}), "text")).splitlines()
        assert counted in found and same in found and Path("films_model/model.safetensors").is_file()
    if page == "plain_pytorch":
        assert "same bits as the run that was not stopped: True" in found and "4,008 of 40,080 weights" in found
    if page == "decoder":
        assert "shouting/sparse_diff.safetensors" in found and Path("shouting_model/model.safetensors").is_file()


@pytest.mark.slow
def test_the_plain_loop_learns(capsys: pytest.CaptureFixture[str]):
    run("plain_pytorch", read("plain_pytorch", {}))
    assert float(re.findall(r"accuracy ([\d.]+)", capsys.readouterr().out)[0]) > 0.8


@pytest.mark.slow
def test_an_own_model_learns_by_an_own_score(capsys: pytest.CaptureFixture[str]):
    run("own_model", read("own_model", {}))
    found = capsys.readouterr().out
    assert all(line in found for line in "".join(blocks(read("own_model", {}), "text")).splitlines())


@pytest.mark.slow
def test_the_decoder_learns(capsys: pytest.CaptureFixture[str]):
    run("decoder", read("decoder", {}))
    before, after = re.findall(r"loss ([\d.]+) -> ([\d.]+)", capsys.readouterr().out)[0]
    assert float(after) < float(before) - 1


def shape(printed: str) -> str:
    """Without what depends on the model."""
    return re.sub(r"\d[\d,.]*|delivery|payment|product", "#", printed)


def own_csv(text: str) -> None:
    """Commands first, as the page has them, then its Python."""
    for block in blocks(text, "bash"):
        if block.startswith("glue-sparse "):
            assert main(shlex.split(block)[1:]) == 0
        else:
            subprocess.run(["bash", "-c", block], check=True)
    run("own_csv", text)


def test_own_csv_runs(tiny_bert: str, capsys: pytest.CaptureFixture[str]):
    quick = "--max_steps 2 --eval_strategy no --density 0.5"  # a model so small is mostly head
    own_csv(read("own_csv", {"--model minilm": f"--model {tiny_bert}", "--num_train_epochs 20": quick,
                             "--density 0.005 ": ""}))  # fmt: skip
    found = capsys.readouterr().out
    for printed in blocks(read("own_csv", {}), "text"):  # but for numbers, which are those of MiniLM, and answers
        assert all(shape(line) in shape(found) for line in printed.splitlines())


@pytest.mark.slow
def test_own_csv_answers_as_the_page_says(capsys: pytest.CaptureFixture[str]):
    own_csv(read("own_csv", {}))
    assert "['delivery', 'payment', 'product']" in capsys.readouterr().out
