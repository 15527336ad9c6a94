"""The scripts of examples/ run: small and on a small model, and as they stand with the slow tests."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from glue_sparse.tasks import tweets

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("swap_tasks", "prune_and_ship", "moving_weights", "small_decoder", "serve", "load_test")


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def main_of(name: str) -> Any:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


@pytest.fixture
def small(tiny_bert: str, monkeypatch: pytest.MonkeyPatch):
    """A model of two layers, and 60 texts of its words."""
    texts = {f"a {'good' if i % 2 else 'bad'} film {'the ' * (i // 8)}{'#' * (i % 4 == 0)}": tweets.LABELS[i % 2]
             for i in range(60)}  # fmt: skip
    monkeypatch.setattr("glue_sparse.models.sources.ALIASES", {})
    monkeypatch.setattr("glue_sparse.models.sources.resolve", lambda model: tiny_bert)
    monkeypatch.setattr("glue_sparse.models.sources.installed", lambda package: Path())
    monkeypatch.setattr(tweets, "read", lambda path: texts)


def test_scripts_are_short_and_all_are_listed():
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(NAMES)
    for name in NAMES:
        assert f"examples/{name}.py" in page
        assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= (190 if name == "serve" else 75)


@pytest.mark.usefixtures("small")
def test_tasks_are_swapped(capsys: pytest.CaptureFixture[str]):
    assert set(main_of("swap_tasks")(16, 6)) == {"positive", "hashtag"}
    found = capsys.readouterr().out
    assert "base bit for bit: True" in found and found.count("switched to in") == 2


@pytest.mark.usefixtures("small")
def test_half_of_the_layers_is_zero_in_stock_transformers():
    _, zeros = main_of("prune_and_ship")(16, 4)
    assert zeros == pytest.approx(0.5, abs=1e-3)


def test_weights_move(capsys: pytest.CaptureFixture[str]):
    assert {*main_of("moving_weights")(seeds=1, epochs=1)} == {"dense", "static", "set", "rigl"}
    assert capsys.readouterr().out.count("| 2,004 |") == 3


@pytest.mark.usefixtures("small")
def test_a_decoder_is_made_and_fine_tuned():
    losses = main_of("small_decoder")(steps=2, fine_steps=3)
    assert {*losses} == {"dense", "fish", "random"} and len({*losses.values()}) == 3
    assert Path("small_decoder/model/model.safetensors").exists()


@pytest.mark.slow
def test_a_decoder_learns():
    losses = main_of("small_decoder")()
    assert losses["dense"] < losses["random"] < 5.4


@pytest.mark.slow
def test_moving_weights_beat_weights_that_stay():
    means = main_of("moving_weights")()
    assert means["static"] < means["rigl"] < means["dense"]


@pytest.mark.slow
def test_two_tasks_are_learnt():
    accuracy = main_of("swap_tasks")()
    assert min(accuracy.values()) > 0.6


@pytest.mark.slow
def test_a_pruned_model_is_shipped():
    accuracy, zeros = main_of("prune_and_ship")()
    assert accuracy > 0.6 and zeros == pytest.approx(0.5, abs=1e-3)
