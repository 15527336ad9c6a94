"""Scores by name: what `--score` takes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from glue_sparse.core.masks import Scores
from glue_sparse.scores.curvature import grasp
from glue_sparse.scores.fisher import fisher
from glue_sparse.scores.gradients import gradient, saliency, skeletonization, taylor
from glue_sparse.scores.scores import ScoreFunction, magnitude, noise
from glue_sparse.scores.synflow import synflow
from glue_sparse.writing.words import check_one_of


@dataclass(frozen=True)
class Named:
    """A score that has a name.

    Attributes:
        function: a `ScoreFunction`, with keyword arguments of its own.
        takes: those of them that a run tells it.
    """

    function: Callable[..., Scores]
    takes: tuple[str, ...] = ()


SCORES: dict[str, Named] = {
    "gradient": Named(gradient, takes=("dtype",)),
    "saliency": Named(saliency, takes=("dtype",)),
    "taylor": Named(taylor, takes=("dtype",)),
    "skeletonization": Named(skeletonization, takes=("dtype",)),
    "synflow": Named(synflow),
    "grasp": Named(grasp),
    "magnitude": Named(magnitude),
    "random": Named(noise, takes=("seed",)),
    "fisher": Named(fisher, takes=("estimator", "power", "seed", "dtype")),
}
"""Name -> score. The names stand in `core.options.Salience` too, which loads no torch."""


def named(name: str, **told: Any) -> ScoreFunction:
    """The score of a name, with those of the things it is told that it takes.

    Raises:
        ValueError: an unknown name.
    """
    check_one_of("score", name, SCORES)
    score = SCORES[name]
    return partial(score.function, **{key: told[key] for key in score.takes if key in told})
