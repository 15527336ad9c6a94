"""What merging diffs of several tasks does to each task's score: a small file that is added to. Loads no torch."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from glue_sparse.writing.fields import json_object, text_of, typed
from glue_sparse.writing.files import json_text, write_text
from glue_sparse.writing.words import prefixed


@dataclass(frozen=True)
class MergedScore:
    """One task of one seed, scored with one diff on the base.

    Attributes:
        way: what the diff is made of, in words.
        title: of the task, which says so where the data are a part.
        score: mean of the main metric over the validation splits, 0 to 1.
        rows: validation examples.
        diff: digest of what was scored, head included.
        merged: the tasks whose diffs are in it.
    """

    way: str
    task: str
    seed: int
    title: str
    metric: str
    score: float
    rows: int
    diff: str
    merged: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is the score of; a newer one takes its place."""
        return self.way, self.task, self.seed


@dataclass(frozen=True)
class MergedScores:
    """All that is in a file.

    Attributes:
        base: the model that all diffs belong to, as the first run calls it.
        versions: of the packages that decide numbers, when the last score was added.
    """

    base: str = ""
    scores: list[MergedScore] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def has(self, score: MergedScore) -> bool:
        """Whether this was scored before, with the same diff on as many examples."""
        found = {one.key: one for one in self.scores}.get(score.key)
        return found is not None and (found.diff, found.rows) == (score.diff, score.rows)

    def also(self, scores: Iterable[MergedScore]) -> list[MergedScore]:
        """All scores with these among them, each in the place of the one that it replaces."""
        return [*{one.key: one for one in (*self.scores, *scores)}.values()]


def read(path: Path) -> MergedScores:
    """What a file holds; nothing where there is none. ValueError for one that is no such file."""
    if not path.exists():
        return MergedScores()
    with prefixed(f"{path} holds no scores of merged diffs"):
        return typed(MergedScores, json_object(text_of(path), "it"), "it")


def write(path: Path, scores: MergedScores) -> None:
    """Write the file, whole or not at all."""
    write_text(path, json_text(asdict(scores), "these scores", indent=1) + "\n")
