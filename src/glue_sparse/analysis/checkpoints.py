"""Checkpoints to look at one after the other: folders, a training's checkpoints in order, or models on the hub."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from glue_sparse.diffs.identity import FILE_NAME
from glue_sparse.models import loading as models
from glue_sparse.models import of_diff, sources
from glue_sparse.writing.words import short_names

_STEP = re.compile(r"(?:^|[^a-z])(?:checkpoint|step)[-_]?(\d+)(k?)(?![0-9a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Checkpoint:
    """A model that is yet to be loaded."""

    label: str
    step: int | None
    """Of its training, where its name tells."""
    source: str
    """Folder, alias or hub id."""
    revision: str | None = None

    def load(self) -> PreTrainedModel:
        """The model, with or without a head, in the type it is stored in; from a diff, its base with the diff in it.

        Raises:
            ValueError: not to be had in safetensors format, or without weights for matrices of its layers.
        """
        folder = sources.resolve(self.source)
        if os.path.lexists(Path(folder) / FILE_NAME):
            diff = of_diff.read_diff(folder)
            model = of_diff.load_base(diff.info, diff.info.base_model)
            diff.merge_into(model)
            return model
        return models.load_encoder(self.source, self.revision)


def find(sources: Sequence[str], revisions: Sequence[str] = ()) -> list[Checkpoint]:
    """What sources name, in the order given; a folder of checkpoints names them all, by step.

    Args:
        sources: folders with a stock model or a `sparse_diff.safetensors`, folders of `checkpoint-100` and so on with
            one of them, aliases, or hub ids. A folder that holds a model of its own stands for that model alone.
        revisions: of the hub ids.
    Raises:
        ValueError: a folder without any of this, a file, or revisions of a folder.
    """
    places = [(place, revision) for source in sources for place, revision in _expanded(source, revisions)]
    folders = [place for place, _ in places if Path(place).is_dir()]
    short = dict(zip(folders, short_names(folders), strict=True))
    found = []
    for place, revision in places:
        name = f"{place}@{revision}" if revision else place
        found.append(Checkpoint(short.get(place) or name, step_of(Path(name).name), place, revision))
    return found


def by_step(found: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Those without a step (a base model) first, in their order, then the others by step."""
    return sorted(found, key=lambda checkpoint: -1 if checkpoint.step is None else checkpoint.step)


def step_of(name: str) -> int | None:
    """The step that `checkpoint-100`, `step_100`, `step100` or `..._step_20k` names; None for other names."""
    steps = _STEP.findall(name)
    return int(steps[-1][0]) * (1000 if steps[-1][1] else 1) if steps else None


def _expanded(source: str, revisions: Sequence[str]) -> list[tuple[str, str | None]]:
    folder = Path(sources.resolve(source))
    if folder.is_file():
        raise ValueError(f"{source} is a file: name its folder")
    if not folder.is_dir():
        return [(source, revision) for revision in revisions or (None,)]
    if revisions:
        raise ValueError(f"`revisions` belong to a model on the hub, and {source} is a folder")
    if _holds_model(folder):
        return [(source, None)]
    steps = {path: step_of(path.name) for path in folder.iterdir() if _holds_model(path)}
    inside = sorted((step, str(path)) for path, step in steps.items() if step is not None)
    if not inside:
        raise ValueError(
            f"folder {source} holds no model (config.json and model.safetensors), no {FILE_NAME}, "
            "and no folders such as checkpoint-100 with one of them"
        )
    return [(path, None) for _, path in inside]


def _holds_model(folder: Path) -> bool:
    """Whether one is there, be it a pipe or a link to nothing, which is then refused, not passed over."""
    return any(os.path.lexists(folder / name) for name in (FILE_NAME, "config.json"))
