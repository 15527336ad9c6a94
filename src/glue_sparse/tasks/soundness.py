"""Whether data can teach and test anything: what is refused, and what a score must not be told without."""

import logging
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import Any

from glue_sparse.writing.words import listed

logger = logging.getLogger(__name__)

MANY_SHARED = 0.5
"""Share of a split's rows that may be rows to train on too before a score is said to tell little about others."""


def check(splits: Mapping[str, Sequence[Any]], classes: Sequence[str], title: str) -> None:
    """Raise a ValueError where a label is not the task's, or the labels to train on are all the same.

    Args:
        splits: the labels of all rows there are, `train` among them.
        classes: names of the classes; none for a regression.
        title: what to call the data.
    """
    indices = range(len(classes))
    allowed = f"a class from 0 to {len(classes) - 1}" if classes else "a finite number"
    for split, labels in splits.items():
        if not labels:
            raise ValueError(f"{title}: {split} has no rows")
        for row, label in enumerate(labels):
            if not (label in indices if classes else isinstance(label, Real) and isfinite(label)):
                raise ValueError(f"{title}: row {row} of {split} has the label {label}, which is not {allowed}")
    if (same := _only(splits["train"], classes)) is not None:
        raise ValueError(f"{title}: every row of train has the label {same}: there is nothing to learn")


def doubts(
    labels: Mapping[str, Sequence[Any]],
    inputs: Mapping[str, Sequence[Hashable]],
    classes: Sequence[str],
    metrics: Sequence[str],
    title: str,
) -> dict[str, list[str]]:
    """What a score must not be told without, a sentence each: said here, and as `doubts` for results.json.

    Args:
        labels, inputs: of the rows that are used, by split; no labels where they are no classes or numbers.
        metrics, title: what to call the scores and the data.
    """
    scored = [split for split in inputs if split != "train"]
    found = [one for split in labels for one in _of_labels(split, labels, classes, metrics)]
    found += [one for split in scored for one in _leak(inputs["train"], inputs[split], split)]
    for sentence in found:
        logger.warning("%s: %s", title, sentence)
    return {"doubts": found} if found else {}


def _of_labels(
    split: str, labels: Mapping[str, Sequence[Any]], classes: Sequence[str], metrics: Sequence[str]
) -> Iterator[str]:
    if (same := _only(labels[split], classes)) is not None:
        told = "nothing can be learned" if split == "train" else f"{' and '.join(metrics)} cannot tell good from bad"
        yield f"every row of {split} that is used has the label {same}: {told}"
    new = set(labels[split]).difference(labels["train"])
    if classes and new:
        names = listed([classes[int(label)] for label in sorted(new)])
        yield f"{split} asks for the label {names}, which no row of train that is used has"


def _leak(train: Iterable[Hashable], scored: Sequence[Hashable], split: str) -> Iterator[str]:
    shared = set(scored).intersection(train)
    count = sum(one in shared for one in scored)
    if count > MANY_SHARED * len(scored):
        yield f"{count:,} of {len(scored):,} rows of {split} are rows of train too: they tell little of others"


def _only(labels: Sequence[Any], classes: Sequence[str]) -> str | None:
    """The label that all rows have; none where they differ."""
    found = set(labels)
    if len(found) != 1:
        return None
    (same,) = found
    return classes[int(same)] if classes else f"{same:g}"
