"""CIFAR-10 (Krizhevsky, 2009): 50,000 training and 10,000 test images of 32x32 pixels in ten classes."""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, Image, load_dataset
from datasets.exceptions import DatasetsError
from torch import Tensor
from tqdm.auto import tqdm
from transformers import EvalPrediction

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.core.params import head_names
from glue_sparse.models.pixels import Pixels
from glue_sparse.models.sources import DTYPES
from glue_sparse.models.vision import load_image_classifier, pixels_for
from glue_sparse.tasks import held_out, metrics, soundness
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.compared import decide, of_outputs
from glue_sparse.tasks.images import ImageCollator
from glue_sparse.tasks.text import cut
from glue_sparse.writing.extras import needed
from glue_sparse.writing.words import shown

HUB_ID = "uoft-cs/cifar10"
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ROWS = {"train": 50_000, "test": 10_000}
SIZE = 32
_JPEG = b"\xff\xd8"


class Images(torch.utils.data.Dataset):
    """Images in memory, as items for `ImageCollator`.

    Args:
        pixels: uint8 [n, 3, 32, 32].
        labels: [n] class indices.
        scored: how to normalise images that are scored; None for images to train on, which are left as they are.
    """

    column_names = ("pixel_values", "labels")

    def __init__(self, pixels: Tensor, labels: Sequence[int], scored: Pixels | None = None):
        self.pixels, self.labels, self.scored = pixels, list(labels), scored

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels = self.pixels[index]
        if self.scored is not None:
            pixels = self.scored.normalised(pixels)
        return {"pixel_values": pixels, "labels": self.labels[index]}


@dataclass(frozen=True)
class _Split:
    """The rows of a table that are used, out of those that could be."""

    table: Dataset
    place: str
    """Where the table is from."""
    available: int
    rows: list[int]


def load(name: str, task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
    """CIFAR-10 from the hub, or from `train.parquet` and `test.parquet` in `task.data_dir` or `cifar10` below it.

    `task.hold_out`: so many training images are scored as `validation`, and the test images are left alone.

    Raises:
        ValueError: the data or the model is not to be had, or an image or label is not one of CIFAR-10's.
    """
    if do_predict:
        raise ValueError("cifar10 has no unlabelled test images to predict")
    pillow()  # refuses before the data is read
    tables, source = _tables(task.data_dir, ("train",) if task.hold_out else ("train", "test"))
    labels = {split: _labels(table, _place(task.data_dir, split)) for split, table in tables.items()}
    soundness.check(labels, LABELS, "CIFAR-10")
    splits = _splits(tables, task, seed)
    named = model.model or ""
    network, base_model = load_image_classifier(named, LABELS, seed, model.dtype, from_scratch=model.from_scratch)
    data, jpeg = _images(splits, pixels := pixels_for(named, network))
    used = {split: len(images) for split, images in data.items()}
    available = {split: chosen.available for split, chosen in splits.items()}
    found = {split: len(table) for split, table in tables.items()}
    source |= {"rows": used, "available_rows": found, "official_rows": {split: ROWS[split] for split in tables},
               "held_out": task.hold_out, **_doubts(data),
               "images": "JPEG, so not the original pixels" if jpeg else "original"}  # fmt: skip
    return Task(
        name=name,
        title=title(used, available, found, jpeg),
        model=network,
        head=head_names(network),
        tokenizer=None,
        train=data.pop("train"),
        evals=data,
        collate=ImageCollator(pixels, seed, DTYPES[model.dtype]),
        metrics=_accuracy,
        main_metric="accuracy",
        compared=of_outputs(len(LABELS)),
        labels=LABELS,
        source=source,
        base_model=base_model,
    )


def title(used: Mapping[str, int], available: Mapping[str, int], found: Mapping[str, int], jpeg: bool = False) -> str:
    """The title, with what keeps a score from being the official one: `CIFAR-10 (JPEG; 500 of 50,000 train rows)`.

    The mappings give rows by split: used, to choose from, and in the data. A split `validation` was held out of train.
    """
    notes = ["validation"] if "validation" in used else []
    if any(rows != ROWS[split] for split, rows in found.items()):
        notes.append("subset" if all(rows <= ROWS[split] for split, rows in found.items()) else "not official")
    notes += [f"{n:,} of {available[split]:,} {split} rows" for split, n in used.items() if n != available[split]]
    words = "; ".join((["JPEG"] if jpeg else []) + ([", ".join(notes)] if notes else []))
    return f"CIFAR-10 ({words})" if words else "CIFAR-10"


def _tables(data_dir: str | None, splits: Sequence[str]) -> tuple[dict[str, Dataset], dict[str, Any]]:
    """Tables with columns `img`, not decoded, and `label`; and where they are from."""
    places = {split: _place(data_dir, split) for split in splits}
    if data_dir is None:
        return {split: _read(places[split], HUB_ID, split) for split in splits}, {"kind": "hub", "name": HUB_ID}
    loaded = {}
    for split, place in places.items():
        if not Path(place).is_file():
            raise ValueError(f"{place} does not exist; `data_dir` is the folder of cifar10/{split}.parquet")
        loaded[split] = _read(place, "parquet", split, data_files={split: place})
    return loaded, {"kind": "data_dir", "name": Path(data_dir).resolve().name}


def _place(data_dir: str | None, split: str) -> str:
    """The file of a table, or its name on the hub."""
    if data_dir is None:
        return f"{HUB_ID} ({split})"
    folder = Path(data_dir)
    root = folder if (folder / "train.parquet").is_file() else folder / "cifar10"
    return str(root / f"{split}.parquet")


def _read(place: str, kind: str, split: str, **options: Any) -> Dataset:
    try:
        table: Any = load_dataset(kind, split=split, **options)
    except (OSError, ValueError, DatasetsError) as error:
        if options:
            raise ValueError(f"{place} is not a readable parquet file") from error
        raise ValueError(
            f"{place} is neither in the Hugging Face cache nor to be reached on the hub; without a network give "
            "`data_dir` with train.parquet and test.parquet"
        ) from error
    for column in ("img", "label"):
        if column not in table.column_names:
            raise ValueError(f"{place} has no column {column!r}; found: {', '.join(table.column_names)}")
    if not len(table):
        raise ValueError(f"{place} has no rows")
    try:
        return table.select_columns(["img", "label"]).cast_column("img", Image(decode=False))
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"the column 'img' of {place} does not hold images") from error


def _splits(tables: Mapping[str, Dataset], task: TaskArguments, seed: int) -> dict[str, _Split]:
    rows = {split: list(range(len(table))) for split, table in tables.items()}
    if task.hold_out:
        labels = _labels(tables["train"], _place(task.data_dir, "train"))
        held = held_out.choose([*map(str, range(len(labels)))], task.hold_out, labels, "images")
        rows = {"train": sorted(set(rows["train"]) - set(held)), "validation": held}
    found = {}
    for split, all_rows in rows.items():
        # `cut` knows its limits by the words train and validation
        kind = "train" if split == "train" else "validation"
        kept = list(cut(Dataset.from_dict({"row": all_rows}), kind, task, seed)["row"])
        source = "train" if task.hold_out else split
        table, place = tables[source], _place(task.data_dir, source)
        found[split] = _Split(table, place, len(table) if split == "train" else len(all_rows), kept)
    return found


def _images(splits: Mapping[str, _Split], pixels: Pixels) -> tuple[dict[str, Images], bool]:
    """The images of each split, and whether any of them is a JPEG."""
    data, jpeg = {}, False
    for split, chosen in splits.items():
        images, labels, compressed = _decode(chosen, split)
        data[split] = Images(images, labels, None if split == "train" else pixels)
        jpeg |= compressed
    return data, jpeg


def _decode(chosen: _Split, split: str) -> tuple[Tensor, list[int], bool]:
    """uint8 [n, 3, 32, 32], [n] class indices, and whether any image is a JPEG."""
    images = np.empty((len(chosen.rows), SIZE, SIZE, 3), dtype=np.uint8)
    labels, jpeg = [], False
    rows: Any = chosen.table.select(chosen.rows)
    for place, row in enumerate(tqdm(rows, desc=f"Decode {split}", disable=None)):
        where = f"row {chosen.rows[place]} of {chosen.place}"
        content = (row["img"] or {}).get("bytes") or b""
        images[place] = _image(content, where)
        labels.append(_label(row["label"], where))
        jpeg |= content.startswith(_JPEG)
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))), labels, jpeg


def _doubts(data: Mapping[str, Images]) -> dict[str, list[str]]:
    labels = {split: images.labels for split, images in data.items()}
    inputs = {split: [*map(_key, images.pixels)] for split, images in data.items()}
    return soundness.doubts(labels, inputs, LABELS, ("accuracy",), "CIFAR-10")


def pillow() -> Any:
    """PIL.Image; ValueError where it is not installed."""
    return needed("PIL.Image", "`task` cifar10", "vision")


def _key(image: Tensor) -> int:
    """Equal for equal images."""
    return hash(image.numpy().tobytes())


def _labels(table: Dataset, place: str) -> list[int]:
    return [_label(label, f"row {row} of {place}") for row, label in enumerate(table["label"])]


def _label(label: Any, where: str) -> int:
    if isinstance(label, bool) or label not in range(len(LABELS)):
        raise ValueError(f"{where} has the label {shown(label)}, which is not a class from 0 to {len(LABELS) - 1}")
    return int(label)


def _image(content: bytes, where: str) -> np.ndarray:
    """[32, 32, 3] from a file's bytes; one of another size is not decoded."""
    pictures = pillow()
    try:
        with warnings.catch_warnings(action="ignore", category=pictures.DecompressionBombWarning):
            picture = pictures.open(io.BytesIO(content))
        width, height = picture.size
        image = np.asarray(picture.convert("RGB")) if (width, height) == (SIZE, SIZE) else None
    except Exception as error:  # for a damaged file PIL raises OSError, SyntaxError, ValueError, struct.error and more
        raise ValueError(f"{where} holds no image that can be read") from error
    if image is None:
        raise ValueError(f"{where} has {width}x{height} pixels; {SIZE}x{SIZE} are expected")
    return image


def _accuracy(evaluated: EvalPrediction) -> dict[str, float]:
    return metrics.score(("accuracy",), decide(evaluated.predictions, True), np.asarray(evaluated.label_ids))
