"""Metrics against values worked by hand."""

import math
import warnings

import numpy as np
import pytest

from glue_sparse.tasks import metrics

LABELS = np.array([1, 1, 1, 0, 0, 0, 0, 0])
CLASSES = np.array([1, 1, 0, 1, 0, 0, 0, 0])
# true positives 2, false positives 1, false negatives 1, true negatives 4


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_class_metrics_by_hand():
    assert metrics.accuracy(CLASSES, LABELS) == 6 / 8
    assert metrics.f1(CLASSES, LABELS) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    by_hand = (2 * 4 - 1 * 1) / math.sqrt(3 * 3 * 5 * 5)
    assert metrics.matthews_correlation(CLASSES, LABELS) == pytest.approx(by_hand)


def test_f1_counts_class_1_as_positive():
    assert metrics.f1(1 - CLASSES, 1 - LABELS) == pytest.approx(2 * 4 / (2 * 4 + 1 + 1))


def test_correlations_by_hand():
    predictions, labels = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 5.0])
    # centred: -1.5 -0.5 0.5 1.5 and -1.75 0.25 -0.75 2.25; products sum to 5.5, squares to 5 and 8.75
    assert metrics.pearson(predictions, labels) == pytest.approx(5.5 / math.sqrt(5 * 8.75))
    # ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * (1 + 1) / (4 * 15)
    assert metrics.spearmanr(predictions, labels) == pytest.approx(0.8)


def test_tied_ranks_are_averaged():
    # ranks 1.5 1.5 3 and 1 2 3: centred products sum to 1.5, squares to 1.5 and 2
    tied = metrics.spearmanr(np.array([0.0, 0.0, 9.0]), np.array([1.0, 2.0, 3.0]))
    assert tied == pytest.approx(1.5 / math.sqrt(1.5 * 2))


@pytest.mark.parametrize("name", metrics.METRICS)
def test_constant_predictions_are_finite(name: str):
    for constant in (0, 1):
        predictions = np.full(len(LABELS), constant)
        value = metrics.score([name], predictions, LABELS)[name]
        assert math.isfinite(value)
        if name not in ("accuracy", "f1"):
            assert value == 0.0


def test_f1_of_all_negatives_is_zero():
    assert metrics.f1(np.zeros(4, int), np.zeros(4, int)) == 0.0


@pytest.mark.parametrize(
    ("task", "keys"),
    [
        ("cola", {"matthews_correlation"}),
        ("mrpc", {"accuracy", "f1", "combined_score"}),
        ("qqp", {"accuracy", "f1", "combined_score"}),
        ("stsb", {"pearson", "spearmanr", "combined_score"}),
        *((task, {"accuracy"}) for task in ("mnli", "qnli", "rte", "sst2", "wnli")),
    ],
)
def test_what_each_task_reports(task: str, keys: set[str]):
    values = metrics.glue(task, CLASSES, LABELS)
    assert set(values) == keys
    assert all(type(value) is float for value in values.values())
    assert metrics.main_metric(metrics.GLUE[task]) in values


def test_combined_score_is_the_mean():
    assert metrics.glue("mrpc", CLASSES, LABELS)["combined_score"] == pytest.approx((6 / 8 + 2 / 3) / 2)


def test_float32_outputs_lose_no_precision_in_the_sums():
    labels = np.linspace(0, 5, 1000)
    predictions = (labels * 1e-3 + 1000).astype(np.float32)
    exact = np.corrcoef(predictions.astype(np.float64), labels)[0, 1]
    assert metrics.score(["pearson"], predictions, labels)["pearson"] == pytest.approx(exact, abs=1e-12)


def test_shapes_must_match():
    with pytest.raises(ValueError, match="cannot be scored"):
        metrics.score(["accuracy"], CLASSES[:3], LABELS)
    with pytest.raises(ValueError, match="cannot be scored"):
        metrics.score(["accuracy"], CLASSES[:0], LABELS[:0])
