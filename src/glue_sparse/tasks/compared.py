"""What metrics compare: predictions and references of a split, one of each per example."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import EvalPrediction

Pairs = tuple[Sequence[Any], Sequence[Any]]
"""Predictions and references: class indices, numbers, or what `evaluate`'s metrics of such a problem take."""


@dataclass(frozen=True)
class Compared:
    """How a task's outputs become pairs for metrics that are not its own.

    Attributes:
        of: the pairs of an evaluated split.
        example: a few pairs as `of` gives them, on which a metric is tried before training.
    """

    of: Callable[[EvalPrediction], Pairs]
    example: Pairs


def decide(outputs: Any, classes: bool) -> np.ndarray:
    """Model outputs, (rows, classes) or (rows, 1), to (rows,) class indices or numbers."""
    logits = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs)
    return logits.argmax(axis=-1) if classes else logits.squeeze(axis=-1)


def of_outputs(num_classes: int) -> Compared:
    """Class indices of a classification, numbers of a regression (no classes); the example has every class."""

    def pairs(evaluated: EvalPrediction) -> Pairs:
        found = decide(evaluated.predictions, bool(num_classes))
        return found.tolist(), np.asarray(evaluated.label_ids).tolist()

    if not num_classes:
        return Compared(pairs, ([0.25, 0.5, 1.5, 2.0], [0.0, 0.75, 1.25, 2.5]))
    every = [row % num_classes for row in range(max(8, 2 * num_classes))]
    return Compared(pairs, ([*every[1:], every[0]], every))
