"""Training rows that are scored instead of trained on, so that settings are chosen without the validation data."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from datasets import Dataset


def choose(keys: Sequence[str], count: int, labels: Sequence[Any] = (), what: str = "rows") -> list[int]:
    """Rows to hold out, in ascending order: of each label its share of `count`, as nearly as possible.

    They depend on keys and labels alone and not on a run's seed: of each label the first in the order of their keys'
    SHA-1. Rows of one key are held out together or not at all, so that none has a twin in training; where that does not
    add up to `count`, they are some fewer.

    Args:
        keys: of each row, what makes it another than the others.
        labels: of each row; none where there are no classes. Rows of one key count by the first's.
        what: to call the rows in a sentence.
    Raises:
        ValueError: nothing would be left to train on, or nothing to score.
    """
    if count >= len(keys):
        raise ValueError(f"`hold_out` {count} leaves none of the {len(keys)} training {what} to train on")
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    label_of = {key: labels[rows[0]] if len(labels) else 0 for key, rows in groups.items()}
    sizes, ranks, turns = Counter(label_of.values()), Counter[Any](), []
    for key in sorted(groups, key=lambda key: hashlib.sha1(key.encode(errors="surrogatepass")).digest()):
        label = label_of[key]
        turns.append(((ranks[label] + 0.5) / sizes[label], label, key))
        ranks[label] += 1
    held: list[int] = []
    for *_, key in sorted(turns):
        if len(held) + len(groups[key]) <= count:
            held += groups[key]
    if not held and count:
        raise ValueError(f"`hold_out` {count} is fewer than the {min(map(len, groups.values()))} training {what} that "
                         "belong together: hold out more")  # fmt: skip
    return sorted(held)


def apart(rows: Dataset, held: Collection[int]) -> dict[str, Dataset]:
    """Training rows as `train`, without those that are held out, and these as `validation`."""
    rest = sorted({*range(len(rows))}.difference(held))
    return {"train": rows.select(rest), "validation": rows.select(sorted(held))}
