"""From rows of text to a task: what every text classification or regression shares."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from transformers import DataCollatorWithPadding, EvalPrediction, PreTrainedTokenizerBase

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.core.params import head_names
from glue_sparse.models.loading import load_classifier
from glue_sparse.models.names import base_name
from glue_sparse.models.padding import choose_side
from glue_sparse.models.tokenizers import load_tokenizer
from glue_sparse.tasks import held_out, metrics, prepared, soundness
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.compared import decide, of_outputs
from glue_sparse.tasks.fits import check_ids, check_length
from glue_sparse.writing.files import write_text


@dataclass(frozen=True)
class TextData:
    """The data of a task before tokenisation."""

    name: str
    title: str
    splits: dict[str, Dataset]
    """`train`, validation splits and, when wanted, test splits (`test...`): columns `text`, for pairs
    `text_pair`, and `label` (class index or number); a test split has `index` instead of `label`."""
    labels: tuple[str, ...]
    """Label names in the order of the class indices; empty for regression."""
    metrics: tuple[str, ...]
    source: dict[str, Any]
    official_rows: Mapping[str, int] = field(default_factory=dict)
    prediction_files: Mapping[str, str] = field(default_factory=dict)
    """Test split -> name of its prediction file."""
    prediction_labels: tuple[str, ...] = ()
    """What a prediction file says for each class; empty: the label names."""
    bounds: tuple[float, float] | None = None
    """Least and greatest number a prediction file may hold."""


def build(data: TextData, task: TaskArguments, model: ModelArguments, seed: int) -> Task:
    """Hold training rows out where that is asked for, cut the splits to size, load the model and tokenise.

    Raises:
        ValueError: the model is not to be had or does not fit tokenizer or `max_length`, or the labels are not sound.
    """
    soundness.check(_labels(data.splits), data.labels, data.title)
    data = _held_out(data, task.hold_out) if task.hold_out else data
    splits = {split: cut(rows, split, task, seed) for split, rows in data.splits.items()}
    doubts = _doubts(splits, data)
    base = base_name(model.model or "", seed, model.from_scratch)
    tokenizer = load_tokenizer(base)
    with seeded_head(seed):
        network = load_classifier(base, len(data.labels) or 1, data.labels, model.dtype, model.pooling)
    check_length(task.max_length, tokenizer, network)
    encoded = {split: _encode(rows, tokenizer, task.max_length) for split, rows in splits.items()}
    check_ids(encoded.values(), tokenizer, network, base)
    choose_side(network, tokenizer, base)
    tests = {split: rows for split, rows in encoded.items() if split.startswith("test")}
    available, used = ({split: len(rows) for split, rows in parts.items()} for parts in (data.splits, splits))
    official = {split: data.official_rows[split] for split in used if split in data.official_rows}
    return Task(
        name=data.name,
        title=describe(data.title, used, available, official, data.source.get("held_out", 0)),
        model=network,
        head=head_names(network),
        tokenizer=tokenizer,
        train=encoded["train"],
        evals={split: rows for split, rows in encoded.items() if split != "train" and split not in tests},
        collate=DataCollatorWithPadding(tokenizer),
        metrics=_scorer(data.metrics, bool(data.labels)),
        main_metric=metrics.main_metric(data.metrics),
        metric_names=metrics.keys(data.metrics),
        compared=of_outputs(len(data.labels)),
        tests=tests,
        write_predictions=_writer(data, {split: [*splits[split]["index"][:]] for split in tests}) if tests else None,
        labels=data.labels,
        source={**data.source, "rows": used, "available_rows": available, "official_rows": official, **doubts},
        base_model=base,
    )


def _labels(splits: Mapping[str, Dataset]) -> dict[str, list[Any]]:
    # the whole column at once: one row after the other takes seconds
    return {split: rows["label"][:] for split, rows in splits.items() if not split.startswith("test")}


def _doubts(splits: Mapping[str, Dataset], data: TextData) -> dict[str, list[str]]:
    labels = _labels(splits)
    inputs = {split: _inputs(splits[split]) for split in labels}
    return soundness.doubts(labels, inputs, data.labels, data.metrics, data.title)


def _inputs(rows: Dataset) -> list[tuple[str, ...]]:
    columns = [rows[column][:] for column in ("text", "text_pair") if column in rows.column_names]
    return [*zip(*columns, strict=True)]


def _held_out(data: TextData, count: int) -> TextData:
    """The data with training rows to score in the place of all validation splits; equal texts stay together."""
    train = data.splits["train"]
    keys, labels = ["\n".join(texts) for texts in _inputs(train)], train["label"][:] if data.labels else ()
    splits = held_out.apart(train, held_out.choose(keys, count, labels))
    tests = {split: rows for split, rows in data.splits.items() if split.startswith("test")}
    official = {split: rows for split, rows in data.official_rows.items() if split in tests}
    source = {**data.source, "held_out": len(splits["validation"])}
    return replace(data, splits={**splits, **tests}, official_rows=official, source=source)


def describe(
    title: str, used: Mapping[str, int], available: Mapping[str, int], official: Mapping[str, int], held: int = 0
) -> str:
    """The title, with what keeps a score from being the official one: `RTE (500 of 2,490 train rows)`.

    The three mappings give rows by split: used in this run, in the data, in the official release where known; `held`
    are those to score that were held out of training.
    """
    scored = [split for split in used if not split.startswith("test")]
    notes = [f"scored on {held:,} train rows held out"] if held else []
    if any(available[split] != official.get(split, available[split]) for split in scored):
        fewer = all(available[split] <= official[split] for split in scored if split in official)
        notes.append("subset" if fewer else "not official")
    evals = [split for split in scored if split != "train"]
    for word, group in (("train", ["train"]), ("validation", evals)):
        rows, whole = sum(used[split] for split in group), sum(available[split] for split in group)
        if rows != whole:
            notes.append(f"{rows:,} of {whole:,} {word} rows")
    return f"{title} ({', '.join(notes)})" if notes else title


def cut(rows: Dataset, split: str, task: TaskArguments, seed: int) -> Dataset:
    """The rows that `max_train_samples` and its like leave of a split, or a ValueError for a limit below 1.

    Training rows are drawn at random, since files are often sorted; others are the first ones.
    """
    kind = "train" if split == "train" else "predict" if split.startswith("test") else "eval"
    limit: int | None = getattr(task, f"max_{kind}_samples")
    if limit is None or limit >= len(rows):
        return rows
    if limit < 1:
        raise ValueError(f"max_{kind}_samples must be at least 1, got {limit}")
    if split == "train":
        return rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:limit]))
    return rows.select(range(limit))


@contextmanager
def seeded_head(seed: int) -> Iterator[None]:
    """A head made within the block is a function of the seed alone, whatever drew random numbers before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _encode(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Rows with tokens in the place of their texts; those of an earlier run on the same texts where they were kept."""
    known, table = prepared.identity(tokenizer), cast(pa.Table, rows.with_format("arrow")[:])
    if known is None:
        return _tokenised(rows, tokenizer, max_length)
    key = prepared.key_of([prepared.source(__file__), known, max_length, prepared.digest(table)])
    made = prepared.kept(key, lambda: _tokenised(rows, tokenizer, max_length, key).data.table, table.nbytes)
    return Dataset(InMemoryTable(made), fingerprint=key)


def _tokenised(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, key: str | None = None) -> Dataset:
    def tokenize(batch: dict[str, list[str]]) -> dict[str, Any]:
        texts = batch["text"], batch.get("text_pair")
        return dict(tokenizer(*texts, truncation=True, max_length=max_length, return_attention_mask=True))

    extra = [column for column in rows.column_names if column != "label"]
    # with a key of ours `map` need not make one of all that the tokenizer holds
    return rows.map(tokenize, batched=True, remove_columns=extra, desc="Tokenise", new_fingerprint=key)


def _scorer(names: Sequence[str], classes: bool) -> Callable[[EvalPrediction], dict[str, float]]:
    def score(evaluated: EvalPrediction) -> dict[str, float]:
        labels = np.asarray(evaluated.label_ids)
        return metrics.score(names, decide(evaluated.predictions, classes), labels)

    return score


def _writer(data: TextData, index: Mapping[str, Sequence[Any]]) -> Callable[[str, np.ndarray, Path], Path]:
    names = data.prediction_labels or data.labels

    def write(split: str, outputs: np.ndarray, folder: Path) -> Path:
        """Write `index<TAB>prediction` lines; raises ValueError when rows and outputs do not match."""
        answers = decide(outputs, bool(names))
        if len(answers) != len(index[split]):
            raise ValueError(f"{len(answers)} predictions do not fit the {len(index[split])} rows of {split}")
        if names:
            words = [names[answer] for answer in answers]
        else:
            low, high = data.bounds or (-np.inf, np.inf)
            words = [f"{number:.3f}" for number in np.clip(answers, low, high)]
        path = folder / data.prediction_files[split]
        lines = ["index\tprediction", *(f"{i}\t{word}" for i, word in zip(index[split], words, strict=True))]
        return write_text(path, "\n".join(lines) + "\n")

    return write
