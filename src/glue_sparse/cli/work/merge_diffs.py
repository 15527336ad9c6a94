"""What `glue-sparse diff merge` and `glue-sparse diff compare` do."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from glue_sparse.core.options import MergeRule
from glue_sparse.diffs.algebra import merge, with_head
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.one_base import Base
from glue_sparse.diffs.overlap import Overlap, overlap
from glue_sparse.models.of_diff import load_base, read_diff
from glue_sparse.writing.tables import markdown
from glue_sparse.writing.words import short_names


def run(
    diffs: list[str], folder: Path, how: MergeRule, weights: list[float] | None, density: float | None, seed: int,
    heads: str, model: str | None,
) -> None:  # fmt: skip
    """Write the merged diff, and what the diffs share."""
    found = [read_diff(place, model) for place in diffs]
    base = None if how == "priority" and model is None else base_of(found, model)
    merged = merge(found, weights, how, base, density=density, seed=seed)
    own = {name: with_head(merged, diff) for name, diff in zip(folders(found), found, strict=True)}
    if len(found) > 1:
        print(f"{pairs(short_names(diffs), overlap(found, base))}\n")
    merged.save_pretrained(folder)
    for name, diff in own.items() if heads == "true" else ():
        diff.save_pretrained(folder / name)
    stored = sum(diff.num_active for diff in found)
    print(f"wrote {folder}: {merged.num_active:,} active entries of {len(found)} diffs with {stored:,} in all, "
          f"{merged.nbytes:,} bytes")  # fmt: skip
    if heads == "true":
        print(f"with the head of each task: {', '.join(str(folder / name) for name in own)}")


def compare(diff: str, others: list[str], changes: str, model: str | None) -> None:
    """What each pair of diffs has in common."""
    if model is not None and changes == "false":
        raise ValueError("`model` has no effect without `changes` true: leave it out, or give that")
    places = [diff, *others]
    found = [read_diff(place, model) for place in places]
    base = base_of(found, model) if changes == "true" else None
    print(pairs(short_names(places), overlap(found, base)))


def base_of(diffs: Sequence[SparseDiff], model: str | None) -> Base:
    """The base of diffs: the model of the first, or the folder that is told of one whose class nobody says."""
    info = diffs[0].info
    return Path(model) if model and not info.model_class and Path(model).is_dir() else load_base(info, model)


def folders(diffs: Sequence[SparseDiff]) -> list[str]:
    """A name for each diff's folder: its task, with its place where several have it or none is said; no two are equal,
    on disks that do not tell letters by their size either."""
    tasks = [re.sub(r"[^\w-]+", "_", diff.info.task).strip("_") or "task" for diff in diffs]
    counts = Counter(task.lower() for task in tasks)
    names = [f"{task}_{place}" if counts[task.lower()] > 1 else task for place, task in enumerate(tasks, 1)]
    is_clear = len({name.lower() for name in names}) == len(names)
    return names if is_clear else [f"{task}_{place}" for place, task in enumerate(tasks, 1)]


def pairs(names: Sequence[str], found: Sequence[Overlap]) -> str:
    """A table with a line for each pair."""
    lines = []
    for one in found:
        entries = one.entries
        smaller = min(entries.first, entries.second)
        chance = entries.by_chance / smaller if smaller else None
        counts = (f"{count:,}" for count in (entries.first, entries.second, entries.both))
        line = [names[one.first], names[one.second], *counts, _share(entries.overlap), _share(chance)]
        if found[0].opposed is not None:
            line += [_share(one.share_opposed), "-" if one.cosine is None else f"{one.cosine:+.4f}"]
        lines.append(line)
    header = ["one", "other", "active", "active", "in both", "of the smaller", "by chance"]
    more = ["opposite signs", "cosine of changes"] if found and found[0].opposed is not None else []
    return markdown([*header, *more], lines)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
