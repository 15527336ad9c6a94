"""Small weights and histograms worked by hand, and what the figures show."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glue_sparse.analysis import emergence
from glue_sparse.analysis.emergence import Small
from glue_sparse.reports.figures import plots
from glue_sparse.reports.figures import weights as weight_figures
from networks import bert
from small_weights import KINDS_OF_MODELS, small_by_formula


def test_counts_worked_by_hand():
    weights = {"layer.0.a.weight": torch.tensor([[0.0005, -0.0009], [0.001, 3.0]])}
    assert emergence.count_small(weights, 0.001) == {"layer.0.a.weight": Small(2, 4)}
    assert emergence.count_small(weights, 4.0)["layer.0.a.weight"].share == 1
    assert emergence.count_small({"edge": torch.tensor([0.5, -0.5, 0.25])}, 0.5) == {"edge": Small(1, 3)}
    assert emergence.count_small({"zeros": torch.zeros(3, 2)}, 1e-30) == {"zeros": Small(6, 6)}


def test_the_comparison_is_exact():
    """float32 has no 0.01: its neighbour below is smaller than the threshold, and float32 would not see it."""
    weights = {"w": torch.tensor([0.01])}
    assert weights["w"].item() < 0.01 and not bool((weights["w"] < 0.01).any())
    assert emergence.count_small(weights, 0.01)["w"].small == 1


def test_a_relative_threshold_is_in_standard_deviations_of_each_matrix():
    """-1, 1, 3, 5 have the standard deviation sqrt(5): 0.44 of it is below 1, 0.45 above."""
    weights = {"a": torch.tensor([[-1.0, 1.0], [3.0, 5.0]]), "b": torch.tensor([[-100.0, 100.0], [300.0, 500.0]])}
    assert emergence.count_small(weights, 0.44, relative=True) == {"a": Small(0, 4), "b": Small(0, 4)}
    assert emergence.count_small(weights, 0.45, relative=True) == {"a": Small(2, 4), "b": Small(2, 4)}
    assert emergence.count_small(weights, 0.45, relative=False)["a"].small == 0


@pytest.mark.parametrize("build, pattern", KINDS_OF_MODELS)
def test_counts_of_whole_models_are_those_of_a_plain_formula(build: Any, pattern: str):
    model = build()
    found = emergence.measure("m", 5, model, (0.01, 0.02)).small
    for tau, small in found.items():
        assert emergence.total(small) == small_by_formula(model, pattern, tau)
        layers, kinds = emergence.per_layer(small), emergence.per_kind(small)
        assert len(layers) == 2 and len(kinds) == len(small) / 2
        for layer, count in layers.items():
            assert count == small_by_formula(model, rf"{layer}\.", tau)
        for kind, count in kinds.items():
            assert count == small_by_formula(model, rf"\.\d\.{kind}$", tau)
    assert emergence.total(found[0.01]).small < emergence.total(found[0.02]).small


def test_nothing_but_the_matrices_of_layers_counts():
    model = bert()
    before = emergence.measure("m", None, model, [0.01])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".layer." not in name or parameter.dim() == 1:
                parameter.zero_()
    assert emergence.measure("m", None, model, [0.01]) == before
    assert emergence.measure("m", None, model.bert, [0.01]) == before


def test_values_that_are_not_finite_are_refused():
    model = bert()
    with torch.no_grad():
        model.get_parameter("bert.encoder.layer.1.output.dense.weight")[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"layer\.1\.output\.dense\.weight holds values that are not finite"):
        emergence.layer_matrices(model)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf])
def test_thresholds_that_make_no_sense(tau: float):
    with pytest.raises(ValueError, match=f"finite number above 0, not {tau:g}$"):
        emergence.check_thresholds([0.1, tau])
    with pytest.raises(ValueError, match="finite number above 0"):
        emergence.count_small({"w": torch.ones(2)}, tau)


def test_a_threshold_given_twice():
    with pytest.raises(ValueError, match="twice: `tau` 0.1 0.2 0.1"):
        emergence.check_thresholds([0.1, 0.2, 0.1])


def test_what_differs_is_named():
    one: emergence.Shapes = {"a": (2, 3), "b": (4, 4)}
    emergence.check_same("x", one, "y", dict(one))
    with pytest.raises(ValueError, match=r"^y is another architecture than x: b is \(4, 4\) in x and \(4, 5\) in y$"):
        emergence.check_same("x", one, "y", {"a": (2, 3), "b": (4, 5)})
    for its, others, place in ((one, {"a": (2, 3)}, "x"), ({"a": (2, 3)}, one, "y")):
        with pytest.raises(ValueError, match=rf"b is \(4, 4\) in {place} and is missing in the other$"):
            emergence.check_same("x", its, "y", others)


def test_histograms_standardise_a_layer_as_a_whole():
    torch.manual_seed(0)
    weights: dict[str, Tensor] = {
        "layer.0.a.weight": torch.randn(30, 40) * 0.02 + 0.01,
        "layer.0.b.weight": torch.randn(20, 50) * 0.1,
        "layer.1.a.weight": torch.randn(30, 40) * 7,
    }
    weights["layer.0.a.weight"][0, 0] = 9.0
    found = emergence.histograms(weights)
    assert list(found) == ["layer.0", "layer.1"]
    together = np.concatenate([weights[f"layer.0.{k}.weight"].numpy().ravel() for k in "ab"]).astype(np.float64)
    standardised = (together - together.mean()) / together.std()
    counts, _ = np.histogram(standardised, np.linspace(-5, 5, 202))
    layer = found["layer.0"]
    assert layer.counts.tolist() == counts.tolist() and layer.counts.dtype == torch.int64
    assert (layer.mean, layer.std) == (pytest.approx(together.mean()), pytest.approx(together.std()))
    beyond = int((np.abs(standardised) > 5).sum())
    assert beyond and layer.outside == pytest.approx(beyond / 2200)
    assert float(layer.density.sum()) * 10 / 201 == pytest.approx(1 - beyond / 2200)


def test_weights_that_are_all_equal_have_no_histogram():
    with pytest.raises(ValueError, match="layer.0 are all equal"):
        emergence.histograms({"layer.0.a.weight": torch.full((2, 2), 0.25)})


def drawn(monkeypatch: pytest.MonkeyPatch, steps: list[int | None]) -> Any:
    """The figure of a random model at these steps."""
    figures: list[Any] = []
    monkeypatch.setattr(plots, "write", lambda figure, folder, name: figures.append(figure) or [])
    measured = [emergence.measure(f"m{i}", step, bert(seed=i), [0.02, 0.01]) for i, step in enumerate(steps)]
    weight_figures.emergence_curves(measured, False, Path(), "x")
    plots.pyplot().close(figures[0])
    return figures[0], measured


def test_the_figure_shows_totals_over_steps_and_maps_of_the_first_threshold(monkeypatch: pytest.MonkeyPatch):
    figure, measured = drawn(monkeypatch, [0, 100, 1000])
    lines, layers, kinds = figure.axes[:3]
    assert [list(line.get_xdata()) for line in lines.lines] == [[0, 100, 1000]] * 2
    for line, tau in zip(lines.lines, (0.02, 0.01), strict=True):
        wanted = [100 * emergence.total(found.small[tau]).share for found in measured]
        assert list(line.get_ydata()) == wanted and f"< {tau:g}" in line.get_label()
    for axis, group in ((layers, emergence.per_layer), (kinds, emergence.per_kind)):
        wanted = [[100 * small.share for small in group(found.small[0.02]).values()] for found in measured]
        assert axis.images[0].get_array().T.tolist() == wanted and "|w| < 0.02" in axis.get_title()


def test_models_that_are_no_steps_are_points_with_names(monkeypatch: pytest.MonkeyPatch):
    figure, _ = drawn(monkeypatch, [None, None])
    assert {line.get_linestyle() for line in figure.axes[0].lines} == {"None"}
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["m0", "m1"]
    figure, _ = drawn(monkeypatch, [None, 100])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["m0", "100"]


def test_histogram_panels_are_one_per_layer_with_a_line_per_model(monkeypatch: pytest.MonkeyPatch):
    figures: list[Any] = []
    monkeypatch.setattr(plots, "write", lambda figure, folder, name: figures.append(figure) or [])
    spread = [emergence.histograms(emergence.layer_matrices(bert(seed=i, num_hidden_layers=5))) for i in range(2)]
    weight_figures.histogram_panels(("a", "b"), spread, Path(), "x")
    axes = figures[0].axes
    assert [axis.get_title() for axis in axes] == list(spread[0]) and axes[0].get_yscale() == "log"
    for axis, layer in zip(axes, spread[0], strict=True):
        for line, found in zip(axis.lines, spread, strict=True):
            assert np.nan_to_num(line.get_ydata()).tolist() == found[layer].density.tolist()
    plots.pyplot().close(figures[0])
