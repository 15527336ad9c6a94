"""Figures of runs whose active entries move, from results and patterns made by hand, and scripts/figure.py."""

from pathlib import Path
from typing import Any

import pytest
import torch

from glue_sparse.cli import figure as script
from glue_sparse.core import tensor_files
from glue_sparse.methods.moving import pattern_file
from glue_sparse.methods.moving.pattern_file import PATTERNS, PATTERNS_FORMAT, second_expansion
from glue_sparse.records import results
from glue_sparse.records.results import Result
from glue_sparse.reports.figures import plots
from glue_sparse.reports.figures.patterns import loss_curves, losses, pattern_images, update_curves
from small_grids import COST

UP = "bert.encoder.layer.1.intermediate.dense.weight"
DOWN = "bert.encoder.layer.1.output.dense.weight"
FIRST = "bert.encoder.layer.0.intermediate.dense.weight"
QUERY = "bert.encoder.layer.1.attention.self.query.weight"
UPDATES = [
    {"step": 9, "fraction": 0.5, "explored": 0.15, "removed_new_of_new": None, "removed_new_of_removed": None},
    {"step": 19, "fraction": 0.25, "explored": 0.2, "removed_new_of_new": 0.1, "removed_new_of_removed": 0.05},
]
HISTORY = [
    {"step": 5, "loss": 4.0, "explored": 0.1},
    {"step": 10, "eval_validation_mlm_loss": 3.5, "eval_validation_nsp_loss": 0.7},
    {"step": 20, "eval_validation_mlm_loss": 3.25, "eval_test_mlm_loss": 3.75},
    {"step": 20, "eval_validation_mlm_loss": 3.25},
]


def made(**changes: Any) -> Result:
    facts: dict[str, Any] = {
        "history": HISTORY, "connections": {"updates": UPDATES, "explored": {UP: 0.5, FIRST: 0.25}}, **changes
    }  # fmt: skip
    return Result(
        task="masked_lm", title="masked LM", method="dynsparse", density=0.1, seed=0, model="tiny", main_metric="mlm",
        metrics={"validation": {"mlm": 1.0}}, cost=COST, seconds={"choose": 1.0, "train": 2.0}, source={}, arguments={},
        command="", date="", **facts,
    )  # fmt: skip


def stored(folder: Path, scale: int = 1, **changes: Any) -> tuple[Path, Result]:
    """The folder of a finished run with patterns of three tensors."""
    shapes = {UP: (4, 2), FIRST: (4, 2), QUERY: (2, 2)}
    counts = {n: scale * torch.arange(r * c, dtype=torch.int16).view(r, c) for n, (r, c) in shapes.items()}
    tensor_files.write(folder / PATTERNS, PATTERNS_FORMAT, counts, {"block_size": 16})
    result = made(**changes)
    results.write(result, folder)
    return folder, result


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are written."""
    figures: list[Any] = []
    write = plots.write

    def also_keep(figure: Any, folder: Path, name: str) -> list[Path]:
        figures.append(figure)
        return write(figure, folder, name)

    monkeypatch.setattr(plots, "write", also_keep)
    return figures


def lines(axis: Any) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): list(zip(*map(list, line.get_data()), strict=True)) for line in axis.lines}


def test_updates_in_four_panels(tmp_path: Path, drawn: list[Any]):
    paths = update_curves({"a": made(), "b": made()}, tmp_path, "updates")
    assert [path.name for path in paths] == ["updates.png", "updates.svg"] and all(p.stat().st_size for p in paths)
    explored, fraction, of_new, of_removed = drawn[0].axes
    assert lines(explored)["a"] == [(9, 15), (19, 20)] and lines(fraction)["b"] == [(9, 50), (19, 25)]
    assert lines(of_new)["a"] == [(19, 10)] and lines(of_removed)["a"] == [(19, 5)]  # none at the first update
    with pytest.raises(ValueError, match="static, a run of dynsparse, has no updates"):
        update_curves({"a": made(), "static": made(connections={"updates": []})}, tmp_path, "x")


def test_losses_are_read_by_split_and_step():
    assert losses(made()) == {"validation": [(10, 3.5), (20, 3.25)], "test": [(20, 3.75)]}
    assert losses(made(history=[{"step": 1, "eval_mlm_loss": 2.0}])) == {"validation": [(1, 2.0)]}
    assert losses(made(history=[{"step": 1, "eval_loss": 2.0}])) == {}


def test_loss_curves(tmp_path: Path, drawn: list[Any]):
    one = made(history=HISTORY[:2])
    assert all(path.stat().st_size for path in loss_curves({"a": one, "b": one}, tmp_path, "loss"))
    assert lines(drawn[0].axes[0]) == {"a": [(10, 3.5)], "b": [(10, 3.5)]}
    assert "validation" in drawn[0].axes[0].get_ylabel()
    loss_curves({"a": one, "b": made()}, tmp_path, "loss")
    assert lines(drawn[1].axes[0]).keys() == {"a, validation", "b, validation", "b, test"}
    with pytest.raises(ValueError, match="logged no masked-LM loss"):
        loss_curves({"a": one, "b": made(history=[])}, tmp_path, "x")


@pytest.mark.slow
def test_images_share_one_scale_and_bars_show_all_tensors(tmp_path: Path, drawn: list[Any]):
    runs = {"random": stored(tmp_path / "a"), "gradient": stored(tmp_path / "b", scale=3)}
    assert all(path.stat().st_size for path in pattern_images(runs, tmp_path, "pattern"))
    images = [image for axis in drawn[0].axes for image in axis.images if axis.get_title()]
    assert [image.get_clim() for image in images] == [(0, 21), (0, 21)]
    assert images[1].get_array().tolist() == [[0, 3], [6, 9], [12, 15], [18, 21]]
    assert all(image.axes.get_title().endswith(UP) for image in images)
    bars = drawn[0].axes[-1]
    assert [round(bar.get_height()) for bar in bars.patches] == [50, 25, 50, 25]
    assert [text.get_text() for text in bars.get_xticklabels()] == [UP, FIRST]
    pattern_images(runs, tmp_path, "pattern", tensor="*.attention.*")
    assert drawn[1].axes[0].images[0].get_array().shape == (2, 2)


def test_the_usual_tensor_is_the_first_of_the_second_ffn():
    shapes = {UP: (32, 8), DOWN: (8, 32), FIRST: (32, 8), QUERY: (8, 8)}
    tenth = UP.replace(".1.", ".10.")
    assert second_expansion(shapes) == second_expansion({tenth: (32, 8), **shapes}) == UP
    assert second_expansion({FIRST: (32, 8)}) == FIRST
    assert second_expansion({"0.weight": (3, 9), "2.weight": (9, 3), "2.bias": (9,)}) == "2.weight"
    with pytest.raises(ValueError, match="name a `tensor`"):
        second_expansion({"conv.weight": (3, 3, 3, 3)})


def test_patterns_that_are_not_there(tmp_path: Path):
    run = stored(tmp_path / "a")
    with pytest.raises(ValueError, match="fits 2 tensors"):
        pattern_images({"a": run}, tmp_path, "x", tensor="*.intermediate.*")
    with pytest.raises(ValueError, match="matches no parameter"):
        pattern_images({"a": run}, tmp_path, "x", tensor="*.nowhere")
    with pytest.raises(ValueError, match=r"holds no patterns\.safetensors"):
        pattern_file.patterns(tmp_path)


@pytest.mark.parametrize(
    ("flags", "files"),
    [
        ((), "explored"),
        (("--name", "mine"), "mine"),
        (("--kind", "updates"), "updates"),
        (("--kind", "loss"), "loss"),
        (("--kind", "pattern", "--tensor", QUERY, "--name", "query"), "query"),
    ],
)
def test_the_script_draws_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], files: str
):
    for name in ("a", "b"):
        stored(tmp_path / name)
    words = [str(tmp_path / "a"), str(tmp_path / "b"), *flags, "--results_dir", str(tmp_path / "out")]
    assert script.main(words) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{files}.png", f"{files}.svg"]


def test_what_the_script_draws_by_itself():
    assert script.usual_kind(made()) == "explored"
    assert script.usual_kind(made(history=HISTORY[1:])) == "loss"
    assert script.usual_kind(made(history=[{"step": 1, "expected_density": 0.5}])) == "gates"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "--tensor", UP], "--tensor goes with --kind pattern"),
        (["a", "--kind", "gates"], "logged no gates"),
        (["a", "--tasks", "rte", "--rank", "3"], "--rank goes with a grid"),
        (["grid.yaml", "--kind", "loss"], "go with folders of runs"),
    ],
)
def test_the_script_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, words: list[str], message: str
):
    stored(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["figure.py", *words])
    with pytest.raises(SystemExit):
        script.main()
    assert message in capsys.readouterr().err
