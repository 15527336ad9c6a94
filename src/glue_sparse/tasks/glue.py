"""The nine GLUE tasks as data, read from the hub or from GLUE's TSV files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks import metrics
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.tables import Table, read_tsv
from glue_sparse.tasks.text import TextData, build

HUB_ID = "nyu-mll/glue"

ENTAILMENT = ("entailment", "not_entailment")


@dataclass(frozen=True)
class GlueTask:
    """How one task looks on the hub, in GLUE's files and to GLUE's server."""

    folder: str
    """Its folder in GLUE's layout, its prediction file, and its name in tables."""
    texts: tuple[str, ...]
    """Text columns on the hub; GLUE's files have the same names unless `file_texts` says otherwise."""
    labels: tuple[str, ...]
    """Label names in the hub's order; empty for regression."""
    rows: Mapping[str, int]
    """Official rows of each split, under the hub's names; a file says `dev` for `validation`."""
    file_texts: tuple[str, ...] = ()
    file_label: str = "label"
    file_labels: tuple[str, ...] = ("0", "1")
    """The labels as files and the server write them."""
    header: tuple[str, ...] | None = None
    """Names of the columns of labelled files that have no header line."""
    skip_broken: bool = False
    """The released training file itself has broken lines, which the hub's copy leaves out."""
    bounds: tuple[float, float] | None = None
    """Range of a regression's labels."""


def _rows(train: int, validation: int, test: int) -> dict[str, int]:
    return {"train": train, "validation": validation, "test": test}


# rows: Wang et al. 2019, table 1, exact as in the release; test rows are those the server expects
GLUE: dict[str, GlueTask] = {
    "cola": GlueTask(
        "CoLA",
        ("sentence",),
        ("unacceptable", "acceptable"),
        _rows(8_551, 1_043, 1_063),
        header=("source", "label", "mark", "sentence"),
    ),
    "mnli": GlueTask(
        "MNLI",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        {
            "train": 392_702,
            "validation_matched": 9_815,
            "validation_mismatched": 9_832,
            "test_matched": 9_796,
            "test_mismatched": 9_847,
        },
        file_texts=("sentence1", "sentence2"),
        file_label="gold_label",
        file_labels=("entailment", "neutral", "contradiction"),
    ),
    "mrpc": GlueTask(
        "MRPC",
        ("sentence1", "sentence2"),
        ("not_equivalent", "equivalent"),
        _rows(3_668, 408, 1_725),
        file_texts=("#1 String", "#2 String"),
        file_label="Quality",
    ),
    "qnli": GlueTask(
        "QNLI", ("question", "sentence"), ENTAILMENT, _rows(104_743, 5_463, 5_463), file_labels=ENTAILMENT
    ),
    "qqp": GlueTask(
        "QQP",
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        _rows(363_846, 40_430, 390_965),
        file_label="is_duplicate",
        skip_broken=True,
    ),
    "rte": GlueTask(
        "RTE", ("sentence1", "sentence2"), ENTAILMENT, _rows(2_490, 277, 3_000), file_labels=ENTAILMENT
    ),
    "sst2": GlueTask("SST-2", ("sentence",), ("negative", "positive"), _rows(67_349, 872, 1_821)),
    "stsb": GlueTask(
        "STS-B",
        ("sentence1", "sentence2"),
        (),
        _rows(5_749, 1_500, 1_379),
        file_label="score",
        file_labels=(),
        bounds=(0.0, 5.0),
    ),
    "wnli": GlueTask("WNLI", ("sentence1", "sentence2"), ENTAILMENT[::-1], _rows(635, 71, 146)),
}


def load(name: str, task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
    """A GLUE task from `task.data_dir`, or from the hub; to predict, with its test splits.

    Raises:
        ValueError: the data or the model is not to be had, or a file is malformed; one sentence says where.
    """
    spec = GLUE[name]
    wanted = [split for split in spec.rows if do_predict or not split.startswith("test")]
    if task.data_dir is None:
        splits, source = _from_hub(name, spec, wanted)
    else:
        splits, source = _from_folder(Path(task.data_dir), spec, wanted)
    suffixes = {"test": "", "test_matched": "-m", "test_mismatched": "-mm"}
    data = TextData(
        name=name,
        title=spec.folder,
        splits=splits,
        labels=spec.labels,
        metrics=metrics.GLUE[name],
        source=source,
        official_rows=spec.rows,
        prediction_files={split: f"{spec.folder}{suffix}.tsv" for split, suffix in suffixes.items()},
        prediction_labels=spec.file_labels,
        bounds=spec.bounds,
    )
    return build(data, task, model, seed)


def _from_hub(name: str, spec: GlueTask, wanted: list[str]) -> tuple[dict[str, Dataset], dict[str, Any]]:
    try:
        loaded = load_dataset(HUB_ID, name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{HUB_ID} ({name}) is neither in the Hugging Face cache nor to be reached on the hub; without "
            "a network use `data_dir` with GLUE's files, `task` tweets, or `task` file with your own files"
        ) from error
    assert isinstance(loaded, DatasetDict)
    splits = {}
    for split in wanted:
        if split not in loaded:
            raise ValueError(f"{HUB_ID} ({name}) has no split {split}; found: {', '.join(map(str, loaded))}")
        last = {"idx": "index"} if split.startswith("test") else {"label": "label"}
        columns = {**dict(zip(spec.texts, ("text", "text_pair"), strict=False)), **last}
        splits[split] = loaded[split].select_columns(list(columns)).rename_columns(columns)
    return splits, {"kind": "hub", "name": HUB_ID}


def _from_folder(
    folder: Path, spec: GlueTask, wanted: list[str]
) -> tuple[dict[str, Dataset], dict[str, Any]]:
    """Splits from `folder/RTE/train.tsv`, ..., or from `folder/train.tsv` when `folder` is the task's own."""
    root = folder if (folder / "train.tsv").is_file() else folder / spec.folder
    paths = {split: root / f"{split.replace('validation', 'dev')}.tsv" for split in wanted}
    for path in paths.values():
        if not path.is_file():
            raise ValueError(f"{path} does not exist; `data_dir` is the folder of {spec.folder}/{path.name}")
    source: dict[str, Any] = {"kind": "data_dir", "name": folder.resolve().name}
    splits = {}
    for split, path in paths.items():
        if split.startswith("test"):
            splits[split] = _test_rows(path, spec)
        else:
            splits[split] = _labelled_rows(path, spec, source)
    return splits, source


def _labelled_rows(path: Path, spec: GlueTask, source: dict[str, Any]) -> Dataset:
    texts = spec.file_texts or spec.texts
    table = read_tsv(path, [*texts, spec.file_label], header=spec.header, skip_broken=spec.skip_broken)
    if table.broken:
        source.setdefault("broken_lines", {})[path.name] = len(table.broken)
    return Dataset.from_dict({**_texts(table, texts), "label": _targets(table, spec)})


def _test_rows(path: Path, spec: GlueTask) -> Dataset:
    texts = spec.file_texts or spec.texts
    table = read_tsv(path, texts, optional=("index", "id"))
    numbers = [table.columns["index"], table.columns["id"], list(range(len(table.lines)))]
    index = next(column for column in numbers if column[0] is not None)
    return Dataset.from_dict({**_texts(table, texts), "index": index})


def _texts(table: Table, texts: tuple[str, ...]) -> dict[str, list[str]]:
    return {name: table.columns[text] for name, text in zip(("text", "text_pair"), texts, strict=False)}


def _targets(table: Table, spec: GlueTask) -> list[Any]:
    """Class indices, or numbers for a regression; a label that is neither is a ValueError with its line."""
    found = table.columns[spec.file_label]
    if spec.bounds is None:
        known = {label: index for index, label in enumerate(spec.file_labels)}
        targets = [known.get(label) for label in found]
        allowed = f"one of {', '.join(known)}"
    else:
        targets = [_within(label, *spec.bounds) for label in found]
        allowed = "a number from {:g} to {:g}".format(*spec.bounds)
    if None in targets:
        row = targets.index(None)
        raise ValueError(f"{table.where(row)}: label {found[row]!r} is not {allowed}")
    return targets


def _within(label: str, low: float, high: float) -> float | None:
    try:
        number = float(label)
    except ValueError:
        return None
    return number if low <= number <= high else None
